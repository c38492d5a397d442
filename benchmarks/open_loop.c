/* Load for an HTTP server from one core: far more requests a second than a Python client can make.

Open loop: requests are due at random moments (a Poisson process) whatever the server does. A
request takes the kept-alive connection that was last used, else a new one while there are fewer
than so many, else it waits in the client, which counts; a connection that is idle for a second is
closed. Who has no answer a while after the request was due hangs up. Closed loop (rate 0): each connection always has one request on its way; a client that
is not answered with 200 asks again a little later. Meanwhile a path of the server's health may be
asked, on a new connection each time, as orchestrators do.

    open_loop PORT REQUESTS RECORDS RATE SECONDS COUNT CONNECTIONS PATIENCE SEED [HEALTH EVERY]

REQUESTS is a file of whole HTTP requests, each after its length as a 32-bit number; they are sent
in turn. It ends after SECONDS, or COUNT requests where that is not 0. RECORDS gets one record a
request, in the order of their ends, see `struct record`; load.py reads it. Standard output gets the
share of a core that the client used. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 8192, EVENTS = 512, HEALTH_CONNECTIONS = 256 };
enum { NO_ANSWER = 0, BROKEN = -1 };      /* in place of an HTTP status */
enum { HEALTH = 1, RETRY_AFTER = 2 };     /* bits of a kind */
static const double IDLE = 1;            /* seconds that a connection is kept for */
static const double HEALTH_PATIENCE = 5;  /* seconds */
static const double ASK_AGAIN = 0.01;     /* seconds, of a closed loop's client that was refused */
static const double SPIN = 30e-6;         /* seconds: shorter waits than that are not slept */

struct record {
    double due;     /* seconds from the start */
    float late;     /* seconds that this client itself was late to notice it */
    float latency;  /* seconds from `due` to the whole answer, or to its failure */
    int32_t status; /* HTTP's, NO_ANSWER or BROKEN */
    int32_t kind;   /* HEALTH, if it asked for that, and RETRY_AFTER, if the answer says when */
};

struct request { const char *text; size_t size; };

struct connection {
    int fd;  /* -1: closed */
    int busy, health;
    struct request request;
    size_t sent;
    double due, idle_since;
    float late;
    struct connection *before, *after;  /* of those that wait for an answer, the oldest first */
    char head[HEAD];
    size_t received;   /* bytes of the head so far */
    int status, chunked, close, retry_after;
    long body;         /* bytes that are still to come; -1: until the end of the connection */
    int in_body;
    char tail[5];      /* the latest bytes of a chunked body */
};

struct list { struct connection first; };
struct waiting { double due; float late; };

static struct request *requests;
static size_t request_count, next_request;
static struct record *records;
static size_t record_count, record_room;
static struct connection *all, *probes;
/* A ring of connections without a request: first those that are closed, then the open ones, of which
   the last one is the last used. */
static struct connection **idle;
static size_t connection_count, idle_first, idle_count, idle_open;
static struct waiting *waiting;   /* a ring of requests without a connection */
static size_t waiting_room = 1 << 20, waiting_first, waiting_count;
static double *refused;           /* closed loop: a ring of moments at which clients ask again */
static size_t refused_first, refused_count, ready_count;
static struct list in_work, in_probe;
static struct sockaddr_in server;
static struct request health;
static struct timespec began;
static int poller, is_closed_loop;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)(t.tv_sec - began.tv_sec) + 1e-9 * (double)(t.tv_nsec - began.tv_nsec);
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void *room_for(size_t count, size_t size) {
    void *found = calloc(count, size);
    if (!found) fail("memory");
    return found;
}

static void note(double due, float late, double latency, int status, int kind) {
    if (record_count == record_room) {
        record_room = record_room ? 2 * record_room : 1 << 16;
        if (!(records = realloc(records, record_room * sizeof *records))) fail("memory");
    }
    records[record_count++] = (struct record){due, late, (float)latency, status, kind};
}

static void append(struct list *list, struct connection *c) {
    c->before = list->first.before;
    c->after = &list->first;
    c->before->after = c;
    list->first.before = c;
}

static void hang_up(struct connection *c) {
    if (c->fd >= 0) close(c->fd);  /* which takes it out of the poller as well */
    c->fd = -1;
}

/* The end of a request, with or without an answer. */
static void end(struct connection *c, int status, double at) {
    int kind = (c->health ? HEALTH : 0) | (status > 0 && c->retry_after ? RETRY_AFTER : 0);
    note(c->due, c->late, at - c->due, status, kind);
    c->before->after = c->after;
    c->after->before = c->before;
    c->busy = 0;
    if (c->close || status <= 0 || c->health) hang_up(c);
    if (c->health) return;
    idle_count++;
    c->idle_since = at;
    if (c->fd < 0) {
        idle_first = (idle_first + connection_count - 1) % connection_count;
        idle[idle_first] = c;
    } else {
        idle_open++;
        idle[(idle_first + idle_count - 1) % connection_count] = c;
    }
    if (!is_closed_loop) return;
    if (status == 200) ready_count++;
    else refused[(refused_first + refused_count++) % connection_count] = at + ASK_AGAIN;
}

static struct connection *take_idle(void) {
    if (idle_open) idle_open--;
    return idle[(idle_first + --idle_count) % connection_count];
}

static void close_idle(double before) {
    while (idle_open) {
        struct connection *c = idle[(idle_first + idle_count - idle_open) % connection_count];
        if (c->idle_since > before) return;
        hang_up(c);
        idle_open--;
    }
}

static void send_on(struct connection *c) {
    while (c->sent < c->request.size) {
        ssize_t n = send(c->fd, c->request.text + c->sent, c->request.size - c->sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN && errno != ENOTCONN) end(c, BROKEN, now());
            return;
        }
        c->sent += (size_t)n;
    }
}

static void start(struct connection *c, struct request request, double due, float late) {
    c->request = request;
    c->due = due;
    c->late = late;
    c->busy = 1;
    c->sent = c->received = 0;
    c->in_body = c->close = 0;
    append(c->health ? &in_probe : &in_work, c);
    if (c->fd < 0) {
        int on = 1;
        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (c->fd < 0) fail("socket");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.ptr = c}};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) fail("epoll_ctl");
        if (connect(c->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) {
            end(c, BROKEN, now());
            return;
        }
    }
    send_on(c);
}

/* The value of a header in a head that ends with a zero; NULL if it has none. */
static const char *header(const char *head, const char *name) {
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (!strncasecmp(line, name, length) && line[length] == ':') {
            line += length + 1;
            return line + strspn(line, " ");
        }
    }
    return NULL;
}

/* Bytes of an answer; whether it is complete. */
static int take(struct connection *c, const char *data, size_t size) {
    if (!c->in_body) {
        size_t room = HEAD - 1 - c->received, copied = size < room ? size : room;
        size_t from = c->received > 3 ? c->received - 3 : 0;
        memcpy(c->head + c->received, data, copied);
        c->received += copied;
        c->head[c->received] = 0;
        char *ending = strstr(c->head + from, "\r\n\r\n");
        if (!ending) {
            if (copied == room) {
                fprintf(stderr, "an answer's head is too long\n");
                exit(1);
            }
            return 0;
        }
        ending[2] = 0;
        size_t in_head = (size_t)(ending + 4 - c->head) - (c->received - copied);
        data += in_head;
        size -= in_head;
        const char *length = header(c->head, "content-length");
        const char *coding = header(c->head, "transfer-encoding");
        const char *keep = header(c->head, "connection");
        c->status = atoi(c->head + 9);
        c->chunked = coding && !strncasecmp(coding, "chunked", 7);
        c->retry_after = header(c->head, "retry-after") != NULL;
        c->body = length ? atol(length) : -1;
        c->close = (keep && !strncasecmp(keep, "close", 5)) || !strncmp(c->head, "HTTP/1.0", 8);
        c->in_body = 1;
        memset(c->tail, 0, sizeof c->tail);
    }
    if (c->chunked) {
        for (size_t i = size > 5 ? size - 5 : 0; i < size; i++) {
            memmove(c->tail, c->tail + 1, 4);
            c->tail[4] = data[i];
        }
        return !memcmp(c->tail, "0\r\n\r\n", 5);
    }
    if (c->body >= 0) return (c->body -= (long)size) <= 0;
    return 0;
}

static void receive(struct connection *c, uint32_t events) {
    static char buffer[1 << 16];
    for (;;) {
        ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            int whole = !n && c->busy && c->in_body && !c->chunked && c->body < 0;
            c->close = 1;
            if (c->busy) end(c, whole ? c->status : BROKEN, now());
            hang_up(c);
            return;
        }
        if (!c->busy) {  /* nobody asked */
            hang_up(c);
            return;
        }
        if (take(c, buffer, (size_t)n)) {
            end(c, c->status, now());
            if (c->fd < 0) return;
        }
        /* With edges instead of levels the end of a connection must be looked for. */
        if ((size_t)n < sizeof buffer && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) return;
    }
}

static void give_up(struct list *list, double before, double at) {
    while (list->first.after != &list->first && list->first.after->due < before) {
        struct connection *c = list->first.after;
        c->close = 1;
        end(c, NO_ANSWER, at);
    }
}

static struct request read_requests(const char *path) {
    FILE *file = fopen(path, "rb");
    uint32_t size;
    if (!file) fail(path);
    requests = room_for(1 << 16, sizeof *requests);
    while (request_count < 1 << 16 && fread(&size, sizeof size, 1, file) == 1) {
        char *text = room_for(size, 1);
        if (fread(text, 1, size, file) != size) fail(path);
        requests[request_count++] = (struct request){text, size};
    }
    fclose(file);
    if (!request_count) fail(path);
    return requests[0];
}

static struct request turn(void) { return requests[next_request++ % request_count]; }

static double soonest(double one, double other) { return one < other ? one : other; }

int main(int count, char **given) {
    if (count != 10 && count != 12) {
        fprintf(stderr, "see the head of open_loop.c\n");
        return 2;
    }
    server.sin_family = AF_INET;
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.sin_port = htons((uint16_t)atoi(given[1]));
    read_requests(given[2]);
    double rate = atof(given[4]), seconds = atof(given[5]), patience = atof(given[8]);
    size_t most = (size_t)atol(given[6]), sent = 0;
    connection_count = (size_t)atol(given[7]);
    srand48(atol(given[9]));
    double every = count == 12 ? atof(given[11]) : 0;
    char text[512];
    if (every > 0) {
        int size = snprintf(text, sizeof text,
            "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", given[10]);
        health = (struct request){text, (size_t)size};
    }
    is_closed_loop = rate <= 0;

    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    /* A sleep may end 50 µs late by default, about as long as a fast server takes to answer. */
    prctl(PR_SET_TIMERSLACK, 1);

    all = room_for(connection_count, sizeof *all);
    probes = room_for(HEALTH_CONNECTIONS, sizeof *probes);
    idle = room_for(connection_count, sizeof *idle);
    refused = room_for(connection_count, sizeof *refused);
    waiting = room_for(waiting_room, sizeof *waiting);
    in_work.first.before = in_work.first.after = &in_work.first;
    in_probe.first.before = in_probe.first.after = &in_probe.first;
    for (size_t i = 0; i < connection_count; i++) {
        all[i].fd = -1;
        idle[idle_count++] = &all[i];
    }
    ready_count = is_closed_loop ? connection_count : 0;
    for (size_t i = 0; i < HEALTH_CONNECTIONS; i++) {
        probes[i].fd = -1;
        probes[i].health = 1;
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) fail("epoll_create1");
    clock_gettime(CLOCK_MONOTONIC, &began);

    double moment = is_closed_loop ? INFINITY : -log(1 - drand48()) / rate;
    double next_health = every > 0 ? every / 2 : INFINITY;
    struct epoll_event events[EVENTS];
    for (;;) {
        double at = now();
        int over = at >= seconds || (most && sent >= most);
        while (moment <= at && moment < seconds && !(most && sent >= most)) {
            if (waiting_count == waiting_room) fail("too many requests wait");
            waiting[(waiting_first + waiting_count++) % waiting_room] =
                (struct waiting){moment, (float)(at - moment)};
            sent++;
            moment -= log(1 - drand48()) / rate;
        }
        if (most && sent >= most) moment = INFINITY;
        while (next_health <= at && !over) {
            for (size_t i = 0; i < HEALTH_CONNECTIONS; i++)
                if (!probes[i].busy) {
                    start(&probes[i], health, next_health, (float)(at - next_health));
                    break;
                }
            next_health += every;
        }
        give_up(&in_work, at - patience, at);
        give_up(&in_probe, at - HEALTH_PATIENCE, at);
        for (; waiting_count && waiting[waiting_first].due < at - patience; waiting_count--) {
            note(waiting[waiting_first].due, waiting[waiting_first].late,
                 at - waiting[waiting_first].due, NO_ANSWER, 0);
            waiting_first = (waiting_first + 1) % waiting_room;
        }
        close_idle(at - IDLE);
        /* As many as are idle now and no more: one that breaks at once is idle again. */
        for (size_t tries = idle_count; tries && waiting_count; tries--) {
            struct waiting next = waiting[waiting_first];
            waiting_first = (waiting_first + 1) % waiting_room;
            waiting_count--;
            start(take_idle(), turn(), next.due, next.late);
        }
        for (; refused_count && refused[refused_first] <= at; refused_count--, ready_count++)
            refused_first = (refused_first + 1) % connection_count;
        for (size_t tries = ready_count; tries && !over; tries--) {
            ready_count--;
            sent++;
            start(take_idle(), turn(), at, 0);
            over = most && sent >= most;
        }
        int none = in_work.first.after == &in_work.first && in_probe.first.after == &in_probe.first;
        if ((moment >= seconds || over) && !waiting_count && none) break;

        double until = soonest(moment, over ? INFINITY : next_health);
        if (!over && ready_count) until = at;
        if (!over && refused_count) until = soonest(until, refused[refused_first]);
        if (in_work.first.after != &in_work.first)
            until = soonest(until, in_work.first.after->due + patience);
        if (in_probe.first.after != &in_probe.first)
            until = soonest(until, in_probe.first.after->due + HEALTH_PATIENCE);
        if (waiting_count) until = soonest(until, waiting[waiting_first].due + patience);
        double wait = soonest(until - now(), 1);
        if (wait < SPIN) wait = 0;
        struct timespec timeout = {(time_t)wait, (long)(1e9 * (wait - floor(wait)))};
        int found = epoll_pwait2(poller, events, EVENTS, &timeout, NULL);
        if (found < 0 && errno != EINTR) fail("epoll_pwait2");
        for (int i = 0; i < found; i++) {
            struct connection *c = events[i].data.ptr;
            if (c->fd >= 0 && c->busy && events[i].events & EPOLLOUT) send_on(c);
            if (c->fd >= 0 && events[i].events & ~(uint32_t)EPOLLOUT) receive(c, events[i].events);
        }
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec)
        + 1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    FILE *file = fopen(given[3], "wb");
    if (!file || fwrite(records, sizeof *records, record_count, file) != record_count || fclose(file))
        fail(given[3]);
    printf("{\"busy\": %f}\n", cpu / now());
    return 0;
}
