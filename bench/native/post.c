/* Post signed notifications that were made before, and time each.
 *
 * post PORT REQUESTS OUT CONNECTIONS SECONDS RATE FIRST MOST
 *
 * REQUESTS holds whole HTTP requests: a count, count + 1 offsets (uint64), the bytes. Those from
 * FIRST on are sent, at most MOST. RATE 0: each connection sends its next when it has its answer
 * (closed loop). Otherwise RATE requests a second fall due by the clock, whatever the server does
 * (open loop), and one that finds no free connection waits with its clock running.
 * OUT gets a `struct shot` for each; stdout one line of JSON.
 */
#include "common.h"

#define ANSWER_BYTES_MAX (1 << 20) /* of which memory is used only as far as answers come */

struct shot {
    int64_t due, sent, answered; /* CLOCK_MONOTONIC, ns; answered is 0 where no answer came */
    int64_t status;              /* HTTP's; negative where the body was not `success` */
};
struct connection {
    int fd, have;
    int64_t shot; /* the request under way, -1 where none is */
    char buffer[ANSWER_BYTES_MAX];
};

static const char *bytes;
static const uint64_t *offsets;
static struct shot *shots;
static struct connection *connections;
static int *idle, idle_count, poll_fd, port;
static int64_t first, most, next, answered, reconnects;

static void map_requests(const char *path) {
    int fd = open(path, O_RDONLY);
    struct stat s;
    if (fd < 0 || fstat(fd, &s)) die(path);
    const uint64_t *file = mmap(NULL, s.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (file == MAP_FAILED) die("mmap");
    offsets = file + 1;
    bytes = (const char *)(file + 2 + file[0]);
    if (first >= (int64_t)file[0]) most = 0;
    else if (most > (int64_t)file[0] - first) most = file[0] - first;
}

static void open_connection(int i) {
    connections[i].fd = tcp_connect(port, 0);
    connections[i].have = 0;
    unblock(connections[i].fd);
    watch(poll_fd, connections[i].fd, i);
}

static void transmit(int i) {
    uint64_t from = offsets[first + connections[i].shot];
    send_all(connections[i].fd, bytes + from, offsets[first + connections[i].shot + 1] - from);
}

static void shoot(int i, int64_t due) {
    int64_t now = now_ns();
    connections[i].shot = next;
    shots[next++] = (struct shot){.due = due ? due : now, .sent = now};
    transmit(i);
}

/* Return how long the first answer in the buffer is, 0 while it is not whole. */
static int answer_bytes(struct connection *c, int64_t *status) {
    c->buffer[c->have] = 0;
    char *end = strstr(c->buffer, "\r\n\r\n");
    if (!end) return 0;
    char *field = strcasestr(c->buffer, "\r\ncontent-length:");
    int length = field && field < end ? atoi(field + 17) : 0;
    int whole = end + 4 - c->buffer + length;
    if (c->have < whole) return 0;
    *status = atoi(c->buffer + 9);
    if (*status == 200 && (length != 7 || memcmp(end + 4, "success", 7))) *status = -200;
    return whole;
}

/* Take what came on a connection; tell whether it is free for the next request. */
static int receive(int i) {
    struct connection *c = &connections[i];
    int64_t status;
    ssize_t got = recv(c->fd, c->buffer + c->have, sizeof c->buffer - 1 - c->have, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (got <= 0) { /* the server hung up: the same request goes again on a new connection */
        close(c->fd);
        reconnects++;
        open_connection(i);
        if (c->shot >= 0) transmit(i);
        return 0;
    }
    c->have += got;
    if (!answer_bytes(c, &status) || c->shot < 0) return 0;
    shots[c->shot].answered = now_ns();
    shots[c->shot].status = status;
    c->shot = -1;
    c->have = 0;
    answered++;
    return 1;
}

static void run(int count, double seconds, double rate) {
    struct epoll_event ready[512];
    int64_t start = now_ns(), end = start + (int64_t)(seconds * 1e9), drained = end + 10000000000LL;
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    watch(poll_fd, timer, UINT64_MAX);
    for (int i = count - 1; i >= 0; i--) idle[idle_count++] = i;
    for (;;) {
        int64_t now = now_ns();
        while (idle_count && next < most && now < end) {
            int64_t due = rate ? start + (int64_t)(next * 1e9 / rate) : 0;
            if (due > now) {
                struct itimerspec at = {.it_value = {due / 1000000000, due % 1000000000}};
                timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
                break;
            }
            shoot(idle[--idle_count], due);
        }
        if ((now >= end || next == most) && (answered == next || now > drained)) return;
        int n = epoll_wait(poll_fd, ready, 512, 100);
        for (int k = 0; k < n; k++) {
            uint64_t ticks;
            if (ready[k].data.u64 == UINT64_MAX) (void)!read(timer, &ticks, sizeof ticks);
            else if (receive(ready[k].data.u64)) idle[idle_count++] = ready[k].data.u64;
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 9) return fprintf(stderr, "see the head of post.c\n"), 2;
    int count = atoi(argv[4]);
    port = atoi(argv[1]), first = atoll(argv[7]), most = atoll(argv[8]);
    map_requests(argv[2]);
    shots = calloc(most + 1, sizeof *shots);
    connections = calloc(count, sizeof *connections);
    idle = calloc(count, sizeof *idle);
    poll_fd = epoll_create1(0);
    for (int i = 0; i < count; i++) connections[i].shot = -1, open_connection(i);
    double cpu = cpu_seconds();
    int64_t start = now_ns();
    run(count, atof(argv[5]), atof(argv[6]));
    double wall = (now_ns() - start) / 1e9;
    printf("{\"sent\":%ld,\"answered\":%ld,\"reconnects\":%ld,\"wall\":%f,\"cpu\":%f}\n", (long)next,
           (long)answered, (long)reconnects, wall, cpu_seconds() - cpu);
    write_file(argv[3], shots, next * sizeof *shots);
}
