/* Answer `success` to whatever comes, at once: what the load generator can do at most.
 *
 * answer PORT
 */
#include "common.h"

static const char ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                             "Content-Length: 7\r\n\r\nsuccess";

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    int listening = socket(AF_INET, SOCK_STREAM, 0), one = 1, poll_fd = epoll_create1(0);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listening, (struct sockaddr *)&at, sizeof at) || listen(listening, 1024)) die("bind");
    watch(poll_fd, listening, listening);
    for (;;) {
        struct epoll_event ready[512];
        char scratch[65536];
        int n = epoll_wait(poll_fd, ready, 512, -1);
        for (int k = 0; k < n; k++) {
            int fd = ready[k].data.u64;
            if (fd == listening) {
                int came = accept(listening, NULL, NULL);
                setsockopt(came, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                watch(poll_fd, came, came);
            } else if (recv(fd, scratch, sizeof scratch, 0) > 0) {
                send_all(fd, ANSWER, sizeof ANSWER - 1);
            } else {
                close(fd);
            }
        }
    }
}
