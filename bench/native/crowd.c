/* Crowd a server on 127.0.0.1: hold many connections that each say something once, or go on saying.
 *
 * crowd PORT FILE CONNECTIONS SECONDS REPEATED
 *
 * Each connection is sent the first part of FILE, which ends after REPEATED bytes before its end;
 * those last bytes are then sent again and again, as fast as the server takes them (REPEATED 0: it
 * stays silent). What comes is thrown away. One that the server closes is opened again, at most
 * OPENS_A_SECOND of them. The program ends by itself after SECONDS. stdout gets one line of JSON.
 */
#include "common.h"

#define OPENS_A_SECOND 2000

struct line {
    int fd; /* -1 while it is closed */
    size_t sent;
};

static struct line *lines;
static char *text, scratch[1 << 16];
static size_t text_bytes, repeated;
static int poll_fd, port;
static int64_t opened, closed, bytes_sent, now_open, most_open;

static void read_text(const char *path) {
    int fd = open(path, O_RDONLY);
    struct stat s;
    if (fd < 0 || fstat(fd, &s)) die(path);
    text = mmap(NULL, s.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (text == MAP_FAILED) die("mmap");
    text_bytes = s.st_size;
}

static void end_line(struct line *l) {
    close(l->fd);
    l->fd = -1;
    closed++, now_open--;
}

/* Begin a connection; the server's backlog may be full, and then it comes about later, or never. */
static int begin_line(int i) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0) return 0;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
        close(fd);
        return 0;
    }
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP, .data.u64 = i};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
    lines[i] = (struct line){.fd = fd};
    opened++;
    if (++now_open > most_open) most_open = now_open;
    return 1;
}

/* Send what can be sent now; once all is said, ask no more for room. */
static int say(int i) {
    struct line *l = &lines[i];
    if (l->sent == text_bytes) {
        if (!repeated) {
            struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP, .data.u64 = i};
            epoll_ctl(poll_fd, EPOLL_CTL_MOD, l->fd, &e);
            return 1;
        }
        l->sent = text_bytes - repeated;
    }
    ssize_t sent = send(l->fd, text + l->sent, text_bytes - l->sent, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    l->sent += sent;
    bytes_sent += sent;
    return 1;
}

static int listen_to(int i) {
    ssize_t got = recv(lines[i].fd, scratch, sizeof scratch, 0);
    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

int main(int argc, char **argv) {
    if (argc != 6) return fprintf(stderr, "see the head of crowd.c\n"), 2;
    int count = atoi(argv[3]), at = 0;
    port = atoi(argv[1]), repeated = atoll(argv[5]);
    read_text(argv[2]);
    if (repeated > text_bytes) return fprintf(stderr, "REPEATED is more than FILE\n"), 2;
    lines = calloc(count, sizeof *lines);
    poll_fd = epoll_create1(0);
    for (int i = 0; i < count; i++) lines[i].fd = -1;
    int64_t start = now_ns(), end = start + (int64_t)(atof(argv[4]) * 1e9);
    for (int64_t now = start; now < end; now = now_ns()) {
        int64_t may = (now - start) / (1000000000 / OPENS_A_SECOND) + 1;
        for (int tried = 0; tried < count && opened < may && now_open < count; tried++) {
            if (lines[at].fd < 0 && !begin_line(at)) break;
            at = (at + 1) % count;
        }
        struct epoll_event ready[512];
        int n = epoll_wait(poll_fd, ready, 512, 10);
        for (int k = 0; k < n; k++) {
            int i = ready[k].data.u64, ok = 1;
            if (lines[i].fd < 0) continue;
            if (ready[k].events & EPOLLIN) ok = listen_to(i);
            if (ok && ready[k].events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP)) ok = 0;
            if (ok && ready[k].events & EPOLLOUT) ok = say(i);
            if (!ok) end_line(&lines[i]);
        }
    }
    printf("{\"opened\":%ld,\"closed\":%ld,\"most_open\":%ld,\"bytes\":%ld}\n", (long)opened,
           (long)closed, (long)most_open, (long)bytes_sent);
}
