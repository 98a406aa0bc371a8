/* A load server that is not the bottleneck: one thread, epoll, answers rendered beforehand.
 *
 *     loadserver DIRECTORY ADDRESS
 *
 * A request to /NAME/anything is answered with the script DIRECTORY/NAME, which the harness writes
 * (see benchmarks/scenes.py):
 *
 *     gap_ns delay_ns stamp_offset pieces fail_gap gate
 *     length length ...
 *     the bytes of the pieces
 *
 * Piece 0, the head, goes out at once; piece 1 after delay_ns (and, where there is a gap, a random
 * part of it, so that streams are out of step); each next one gap_ns after the one before was due.
 * Without a gap, streams take turns as fast as their sockets take the pieces. At stamp_offset of piece 1
 * (-1: nowhere) two times are written, CLOCK_MONOTONIC in ns as 19 digits each: of its sending and of
 * the request's coming. With fail_gap = n > 0, all but every nth request get the script NAME.busy
 * instead. With gate = n > 0, streams stop after piece 1 until n of them have come so far.
 *
 * GET /_usage tells of the time since the last such request, in JSON: seconds of CPU, writes, requests,
 * and how late paced pieces went out (mean and worst, in microseconds). The port is printed on start,
 * the CPU of the whole run on SIGTERM.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FDS = 65536, REQUEST = 65536, EVENTS = 512, TURN = 128 };

typedef struct Script {
    char name[256];
    long long gap, delay, stamp, pieces, fail_gap, gate;
    long long requests, waiting;
    size_t *start; /* pieces + 1 offsets */
    char *bytes;
    struct Script *busy, *next;
} Script;

typedef struct {
    char *request; /* what has come of a request; NULL: no connection */
    size_t have, sent;
    long long body_left; /* of a request whose head has been read */
    Script *script;      /* what is being sent */
    long long piece, due, came;
    unsigned generation;
    int blocked;
    int gated; /* whether it is counted among those that wait at the gate */
    char path[256];
} Conn;

typedef struct {
    long long due;
    int fd;
    unsigned generation;
} Timer;

static Conn conns[MAX_FDS];
static Timer *heap;
static size_t heap_size, heap_room;
static Script *scripts;
static const char *directory;
static int epoll_fd;
static volatile sig_atomic_t stopped;
static long long writes, requests, late_count, late_sum, late_worst;
static double cpu_then;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static double cpu(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return use.ru_utime.tv_sec + use.ru_stime.tv_sec +
           (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

/* -- timers: a binary heap; those of closed connections are dropped when they come up ------------ */

static void push(long long due, int fd) {
    if (heap_size == heap_room) {
        heap_room = heap_room ? 2 * heap_room : 1024;
        heap = realloc(heap, heap_room * sizeof *heap);
        if (!heap) die("realloc");
    }
    size_t at = heap_size++;
    while (at && heap[(at - 1) / 2].due > due) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = (Timer){due, fd, conns[fd].generation};
}

static Timer pop(void) {
    Timer first = heap[0], last = heap[--heap_size];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < heap_size) {
        if (child + 1 < heap_size && heap[child + 1].due < heap[child].due) child++;
        if (heap[child].due >= last.due) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return first;
}

/* -- scripts ------------------------------------------------------------------------------------- */

static Script *load(const char *name) {
    char path[1024];
    for (Script *s = scripts; s; s = s->next)
        if (!strcmp(s->name, name)) return s;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = strchr(name, '/') ? NULL : fopen(path, "rb");
    if (!file) return NULL;
    Script *s = calloc(1, sizeof *s);
    snprintf(s->name, sizeof s->name, "%s", name);
    if (fscanf(file, "%lld %lld %lld %lld %lld %lld", &s->gap, &s->delay, &s->stamp, &s->pieces,
               &s->fail_gap, &s->gate) != 6)
        die(path);
    s->start = calloc(s->pieces + 1, sizeof *s->start);
    for (long long i = 0; i < s->pieces; i++) {
        size_t length;
        if (fscanf(file, "%zu", &length) != 1) die(path);
        s->start[i + 1] = s->start[i] + length;
    }
    if (fgetc(file) != '\n') die(path);
    s->bytes = malloc(s->start[s->pieces]);
    if (fread(s->bytes, 1, s->start[s->pieces], file) != s->start[s->pieces]) die(path);
    fclose(file);
    s->next = scripts;
    scripts = s;
    if (s->fail_gap > 0) {
        snprintf(path, sizeof path, "%.240s.busy", name);
        if (!(s->busy = load(path))) die(path);
    }
    return s;
}

/* -- connections ---------------------------------------------------------------------------------- */

static void drop(int fd) {
    Conn *c = &conns[fd];
    if (c->gated) c->script->waiting--; /* it has gone from the gate */
    c->gated = 0;
    free(c->request);
    c->request = NULL;
    c->script = NULL;
    c->generation++; /* its timer is void */
    close(fd);
}

static void watch(int fd, int blocked) {
    if (conns[fd].blocked == blocked) return;
    conns[fd].blocked = blocked;
    struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event)) die("epoll_ctl");
}

/* Let all streams of a script go on: as many have come to the gate as it waits for. */
static void open_gate(Script *s, long long time) {
    s->waiting = 0;
    for (int fd = 0; fd < MAX_FDS; fd++) {
        Conn *c = &conns[fd];
        if (!c->request || c->script != s || c->piece != 2 || c->sent) continue;
        c->gated = 0;
        c->due = time + (s->gap ? random() % s->gap : 0);
        push(c->due, fd);
    }
}

/* Send the piece that is due, and set the timer of the next. */
static void send_piece(int fd, long long time) {
    Conn *c = &conns[fd];
    Script *s = c->script;
    char *from = s->bytes + s->start[c->piece] + c->sent;
    size_t length = s->start[c->piece + 1] - s->start[c->piece] - c->sent;
    if (c->piece == 1 && s->stamp >= 0 && !c->sent) {
        char digits[39];
        snprintf(digits, sizeof digits, "%019lld%019lld", now(), c->came);
        memcpy(from + s->stamp, digits, 38);
    }
    if (!c->sent && s->gap && c->piece) {
        long long late = time - c->due;
        late_count++;
        late_sum += late;
        if (late > late_worst) late_worst = late;
    }
    ssize_t done = send(fd, from, length, MSG_NOSIGNAL);
    writes++;
    if (done < 0 && errno != EAGAIN) {
        drop(fd);
        return;
    }
    if (done < (ssize_t)length) {
        c->sent += done < 0 ? 0 : done;
        watch(fd, 1);
        return;
    }
    watch(fd, 0);
    c->sent = 0;
    if (++c->piece == s->pieces) {
        c->script = NULL;
        return;
    }
    if (c->piece == 2 && s->gate > 0) {
        c->gated = 1;
        if (++s->waiting >= s->gate) open_gate(s, time);
        return;
    }
    if (c->piece == 1) c->due = time + s->delay + (s->gap ? random() % s->gap : 0);
    else c->due = s->gap ? c->due + s->gap : time;
    if (c->piece == 1 && !s->gap && !s->delay) send_piece(fd, time);
    else push(c->due, fd);
}

static void reply(int fd, const char *text) {
    char whole[1024];
    int length = snprintf(whole, sizeof whole,
                          "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                          *text == '{' ? "200 OK" : "404 Not Found", strlen(text), text);
    if (send(fd, whole, length, MSG_NOSIGNAL) < 0) drop(fd);
}

static void usage(int fd) {
    char text[512];
    double total = cpu();
    snprintf(text, sizeof text,
             "{\"cpu\": %.6f, \"writes\": %lld, \"requests\": %lld, \"late_mean\": %.1f, \"late_worst\": %.1f}",
             total - cpu_then, writes, requests, late_count ? late_sum / 1e3 / late_count : 0.0,
             late_worst / 1e3);
    cpu_then = total;
    writes = requests = late_count = late_sum = late_worst = 0;
    reply(fd, text);
}

static void answer(int fd) {
    Conn *c = &conns[fd];
    char *name = c->path + 1, *end = strchr(name, '/');
    if (end) *end = 0;
    requests++;
    if (!strcmp(name, "_usage")) {
        usage(fd);
        return;
    }
    Script *s = load(name);
    if (!s) {
        reply(fd, "no such script");
        return;
    }
    if (s->fail_gap > 0 && s->requests++ % s->fail_gap != s->fail_gap - 1) s = s->busy;
    c->script = s;
    c->came = now();
    c->piece = 0;
    c->sent = 0;
    send_piece(fd, c->came);
}

/* Take what has come of requests; those of one connection come one after the other. */
static void read_request(int fd) {
    Conn *c = &conns[fd];
    ssize_t got = recv(fd, c->request + c->have, REQUEST - c->have - 1, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        drop(fd);
        return;
    }
    if (c->body_left > 0) { /* bodies are counted, not kept */
        c->body_left -= got;
        if (c->body_left <= 0) answer(fd);
        return;
    }
    c->have += got;
    c->request[c->have] = 0;
    char *end = strstr(c->request, "\r\n\r\n");
    if (!end) {
        if (c->have == REQUEST - 1) drop(fd);
        return;
    }
    char *length = strcasestr(c->request, "\r\ncontent-length:");
    c->body_left = length && length < end ? atoll(length + 17) : 0;
    c->body_left -= c->have - (end + 4 - c->request);
    c->have = 0;
    if (sscanf(c->request, "%*15s %255s", c->path) != 1) drop(fd);
    else if (c->body_left <= 0) answer(fd);
}

static void accept_all(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MAX_FDS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        Conn *c = &conns[fd];
        unsigned generation = c->generation + 1;
        memset(c, 0, sizeof *c);
        c->generation = generation;
        c->request = malloc(REQUEST);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
    }
}

static void run_timers(void) {
    for (int turn = 0; turn < TURN && heap_size; turn++) {
        long long time = now();
        if (heap[0].due > time) return;
        Timer timer = pop();
        Conn *c = &conns[timer.fd];
        if (c->request && c->generation == timer.generation && c->script) send_piece(timer.fd, time);
    }
}

static int wait_events(struct epoll_event *events) {
    struct timespec wait, *timeout = NULL;
    if (heap_size) {
        long long left = heap[0].due - now();
        if (left < 0) left = 0;
        wait = (struct timespec){left / 1000000000, left % 1000000000};
        timeout = &wait;
    }
    return epoll_pwait2(epoll_fd, events, EVENTS, timeout, NULL);
}

static void on_term(int number) {
    (void)number;
    stopped = 1;
}

static int listen_on(const char *address) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in name = {.sin_family = AF_INET};
    socklen_t size = sizeof name;
    if (fd < 0 || inet_pton(AF_INET, address, &name.sin_addr) != 1) die(address);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&name, size) || listen(fd, 4096)) die("listen");
    getsockname(fd, (struct sockaddr *)&name, &size);
    printf("%d\n", ntohs(name.sin_port));
    fflush(stdout);
    return fd;
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: loadserver DIRECTORY ADDRESS\n");
        return 2;
    }
    directory = arguments[1];
    struct sigaction act = {.sa_handler = on_term};
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    prctl(PR_SET_TIMERSLACK, 1UL);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* nothing is left behind when the harness dies */
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on(arguments[2]);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS];
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event)) die("epoll_ctl");
    while (!stopped) {
        int ready = wait_events(events);
        if (ready < 0 && errno != EINTR) die("epoll_pwait2");
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) accept_all(listener);
            else if (conns[fd].request && events[i].events & EPOLLOUT && conns[fd].script)
                send_piece(fd, now());
            if (fd != listener && conns[fd].request && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                read_request(fd);
        }
        run_timers();
    }
    printf("{\"cpu\": %.3f}\n", cpu());
    return 0;
}
