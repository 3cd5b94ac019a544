/* Hold many tills open, and note when each event reaches each.
 *
 * tills PORT PATH OUT TILLS STALLED BASE EXPECTED CONNECT < keys
 *
 * The first STALLED tills never read after they are connected. CONNECT is the pos.v1 frame that
 * each sends, '' for servers that know none; with it, a till counts as connected at its `ready`.
 * The keys come on stdin, one a line, and go round; an empty line ends them. `ready` is printed
 * once all are connected and `done` once EXPECTED events came to those that read. The program
 * ends when stdin does and nothing comes any more: OUT gets a `struct arrival` for each event, stdout one line of JSON.
 * An event is known by its transactionNo, 18 digits: BASE + the number of the request.
 */
#include "common.h"

#define KEYS_MAX 512
#define FRAME_BYTES_MAX (1 << 20)
#define DIGITS 18
#define LOST_SHOWN 3
#define QUIET_NS 300000000LL
#define DRAIN_NS_MAX 20000000000LL

struct arrival {
    uint32_t till, request;
    int64_t at; /* CLOCK_MONOTONIC, ns */
};
struct till {
    int fd;
    char *rest; /* the beginning of a frame whose end has not come */
    size_t rest_bytes;
};

static struct till *tills;
static struct arrival *arrivals;
static size_t arrival_count, arrival_room, ready_count, lost;
static int ended;
static char scratch[2 * FRAME_BYTES_MAX], keys[KEYS_MAX][256];
static int key_count, poll_fd;
static uint64_t base;

static void send_text(int fd, const char *text) {
    size_t length = strlen(text), head = 2;
    char frame[4096] = {(char)0x81}; /* masked with zeros: the mask is there and changes nothing */
    if (length > sizeof frame - 8) die("connect frame");
    if (length < 126) frame[1] = (char)(0x80 | length);
    else {
        frame[1] = (char)(0x80 | 126), frame[2] = (char)(length >> 8), frame[3] = (char)length;
        head = 4;
    }
    memcpy(frame + head + 4, text, length);
    send_all(fd, frame, head + 4 + length);
}

static void shake_hands(struct till *t, int port, const char *path, const char *key, int stalled) {
    char request[1024], authorization[300] = "";
    if (key) snprintf(authorization, sizeof authorization, "Authorization: Bearer %s\r\n", key);
    int n = snprintf(request, sizeof request,
                     "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: pos.v1\r\n%s\r\n",
                     path, port, authorization);
    t->fd = tcp_connect(port, stalled ? 4096 : 0);
    send_all(t->fd, request, n);
    size_t have = 0; /* byte by byte, so that no frame is taken with the answer */
    while (have < 4 || memcmp(scratch + have - 4, "\r\n\r\n", 4))
        if (recv(t->fd, scratch + have++, 1, 0) != 1) die("handshake");
    if (memcmp(scratch + 9, "101", 3)) {
        fprintf(stderr, "%.*s", (int)have, scratch);
        exit(1);
    }
}

static void note(struct till *t, const char *frame, size_t bytes, int64_t at) {
    static const char NAME[] = "\"transactionNo\":";
    const char *found = memmem(frame, bytes, NAME, sizeof NAME - 1);
    if (!found || !memmem(frame, bytes, "\"event\"", 7)) return;
    found += sizeof NAME - 1;
    while (*found == ' ' || *found == '"') found++;
    uint64_t number = 0;
    for (int i = 0; i < DIGITS; i++) number = number * 10 + (found[i] - '0');
    if (arrival_count == arrival_room) {
        arrival_room = arrival_room ? 2 * arrival_room : 1 << 16;
        arrivals = realloc(arrivals, arrival_room * sizeof *arrivals);
        if (!arrivals) die("realloc");
    }
    arrivals[arrival_count++] =
        (struct arrival){.till = t - tills, .request = number - base, .at = at};
}

static void handle(struct till *t, int opcode, char *frame, size_t bytes, int64_t at) {
    if (opcode == 8 && bytes >= 2 && lost < LOST_SHOWN && !ended)
        fprintf(stderr, "till %ld closed: %d %.*s\n", (long)(t - tills),
                (uint8_t)frame[0] << 8 | (uint8_t)frame[1], (int)bytes - 2, frame + 2);
    if (opcode != 1) return;
    if (memmem(frame, bytes, "\"type\":\"ping\"", 13)) {
        char pong[64], *time = memmem(frame, bytes, "\"t\":", 4);
        snprintf(pong, sizeof pong, "{\"type\":\"pong\",\"t\":%lld}", time ? atoll(time + 4) : 0);
        send_text(t->fd, pong);
    } else if (memmem(frame, bytes, "\"type\":\"ready\"", 14)) {
        ready_count++;
    } else {
        note(t, frame, bytes, at);
    }
}

static void receive(struct till *t) {
    if (t->rest_bytes) memcpy(scratch, t->rest, t->rest_bytes);
    ssize_t got = recv(t->fd, scratch + t->rest_bytes, FRAME_BYTES_MAX, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        epoll_ctl(poll_fd, EPOLL_CTL_DEL, t->fd, NULL);
        lost++;
        return;
    }
    int64_t at = now_ns();
    size_t have = t->rest_bytes + got, from = 0;
    while (have - from >= 2) {
        uint8_t *b = (uint8_t *)scratch + from;
        size_t head = 2, length = b[1] & 127;
        if (length == 126) head = 4;
        if (length == 127) head = 10;
        if (have - from < head) break;
        if (head > 2) length = 0;
        for (size_t i = 2; i < head; i++) length = length << 8 | b[i];
        if (length > FRAME_BYTES_MAX / 2) die("frame too long");
        if (have - from < head + length) break;
        handle(t, b[0] & 15, scratch + from + head, length, at);
        from += head + length;
    }
    t->rest_bytes = have - from;
    t->rest = realloc(t->rest, t->rest_bytes + 1);
    memcpy(t->rest, scratch + from, t->rest_bytes);
}

static int wait_some(int timeout_ms) {
    struct epoll_event ready[512];
    int n = epoll_wait(poll_fd, ready, 512, timeout_ms), over = 0;
    for (int k = 0; k < n; k++) {
        if (ready[k].data.u64 != UINT64_MAX) receive(&tills[ready[k].data.u64]);
        else over = read(0, scratch, sizeof scratch) <= 0;
    }
    return over;
}

static void read_keys(void) {
    while (key_count < KEYS_MAX && fgets(keys[key_count], sizeof keys[0], stdin)) {
        keys[key_count][strcspn(keys[key_count], "\n")] = 0;
        if (!*keys[key_count]) break;
        key_count++;
    }
}

int main(int argc, char **argv) {
    if (argc != 9) return fprintf(stderr, "see the head of tills.c\n"), 2;
    size_t count = atoi(argv[4]), stalled = atoi(argv[5]), expected = atoll(argv[7]);
    base = strtoull(argv[6], NULL, 10);
    setvbuf(stdin, NULL, _IONBF, 0);
    read_keys();
    tills = calloc(count, sizeof *tills);
    poll_fd = epoll_create1(0);
    for (size_t i = 0; i < count; i++) {
        shake_hands(&tills[i], atoi(argv[1]), argv[2], key_count ? keys[i % key_count] : NULL,
                    i < stalled);
        watch(poll_fd, tills[i].fd, i);
        if (*argv[8]) send_text(tills[i].fd, argv[8]);
        while (*argv[8] && i + 1 - ready_count >= 64 && !lost) wait_some(1000);
    }
    while (*argv[8] && ready_count < count && !lost) wait_some(1000);
    if (lost) return 1;
    for (size_t i = 0; i < stalled; i++) epoll_ctl(poll_fd, EPOLL_CTL_DEL, tills[i].fd, NULL);
    watch(poll_fd, 0, UINT64_MAX);
    printf("ready\n"), fflush(stdout);
    double cpu = cpu_seconds();
    int64_t start = now_ns();
    for (int said = 0; !wait_some(1000);)
        if (!said && arrival_count >= expected) said = printf("done\n"), fflush(stdout);
    epoll_ctl(poll_fd, EPOLL_CTL_DEL, 0, NULL);
    ended = 1;
    /* What is still under way belongs to the measurement: go on until nothing came for a while. */
    for (int64_t last = now_ns(), limit = last + DRAIN_NS_MAX; now_ns() < limit;) {
        size_t before = arrival_count;
        wait_some(50);
        if (arrival_count > before) last = now_ns();
        if (now_ns() - last > QUIET_NS) break;
    }
    double wall = (now_ns() - start) / 1e9;
    printf("{\"arrivals\":%zu,\"lost\":%zu,\"wall\":%f,\"cpu\":%f}\n", arrival_count, lost, wall,
           cpu_seconds() - cpu);
    write_file(argv[3], arrivals, arrival_count * sizeof *arrivals);
}
