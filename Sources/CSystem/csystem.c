#define _GNU_SOURCE
#include "include/csystem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define RESULT(call) ({ __auto_type r_ = (call); r_ < 0 ? -errno : r_; })

// ---- epoll, eventfd ----

int cs_epoll_create(void) { return RESULT(epoll_create1(EPOLL_CLOEXEC)); }

static uint32_t to_epoll(uint32_t interest) {
    return ((interest & CS_READ) ? EPOLLIN | EPOLLRDHUP : 0) | ((interest & CS_WRITE) ? EPOLLOUT : 0) |
           ((interest & CS_EDGE) ? EPOLLET : 0);
}

static int control(int epoll, int operation, int fd, uint32_t interest, uint64_t data) {
    struct epoll_event event = {.events = to_epoll(interest), .data.u64 = data};
    return RESULT(epoll_ctl(epoll, operation, fd, &event));
}

int cs_epoll_add(int epoll, int fd, uint32_t interest, uint64_t data) {
    return control(epoll, EPOLL_CTL_ADD, fd, interest, data);
}

int cs_epoll_modify(int epoll, int fd, uint32_t interest, uint64_t data) {
    return control(epoll, EPOLL_CTL_MOD, fd, interest, data);
}

int cs_epoll_remove(int epoll, int fd) { return control(epoll, EPOLL_CTL_DEL, fd, 0, 0); }

int cs_epoll_wait(int epoll, struct cs_event *events, int capacity, int timeout_ms) {
    struct epoll_event batch[256];
    if (capacity > 256) capacity = 256;
    int count = epoll_wait(epoll, batch, capacity, timeout_ms);
    if (count < 0) return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        uint32_t got = batch[i].events;
        events[i].data = batch[i].data.u64;
        events[i].ready = ((got & EPOLLIN) ? CS_READ : 0) | ((got & EPOLLOUT) ? CS_WRITE : 0) |
                          ((got & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) ? CS_HANGUP : 0);
    }
    return count;
}

int cs_eventfd(void) { return RESULT(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

void cs_eventfd_signal(int fd) {
    uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR) {}
}

void cs_eventfd_clear(int fd) {
    uint64_t value;
    while (read(fd, &value, sizeof value) < 0 && errno == EINTR) {}
}

int64_t cs_monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

// ---- sockets ----

static int resolve(const char *host, uint16_t port, int flags, struct addrinfo **found) {
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    int code = getaddrinfo(host, service, &hints, found);
    if (code == 0) return 0;
    return code == EAI_SYSTEM ? -errno : -EADDRNOTAVAIL;
}

int cs_listen(const char *host, uint16_t port, int backlog, uint16_t *bound_port) {
    struct addrinfo *found;
    int code = resolve(host, port, AI_PASSIVE, &found);
    if (code < 0) return code;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1;
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, backlog) < 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &size) < 0) {
        code = -errno;
        if (fd >= 0) close(fd);
        freeaddrinfo(found);
        return code;
    }
    freeaddrinfo(found);
    *bound_port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                    : ((struct sockaddr_in *)&bound)->sin_port);
    return fd;
}

int cs_accept(int listener, char *address, int address_size) {
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    int fd;
    do fd = accept4(listener, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) return -errno;
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    address[0] = 0;
    getnameinfo((struct sockaddr *)&peer, size, address, address_size, NULL, 0, NI_NUMERICHOST);
    return fd;
}

int cs_connect(const char *host, uint16_t port) {
    struct addrinfo *found;
    int code = resolve(host, port, 0, &found);
    if (code < 0) return code;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) < 0) {
        code = -errno;
        if (fd >= 0) close(fd);
    } else {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        code = fd;
    }
    freeaddrinfo(found);
    return code;
}

int64_t cs_send(int fd, const void *bytes, int64_t count) {
    int64_t sent;
    do sent = send(fd, bytes, count, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

int cs_shutdown_write(int fd) { return RESULT(shutdown(fd, SHUT_WR)); }

// ---- descriptors ----

int cs_pipe(int ends[2]) { return RESULT(pipe2(ends, O_CLOEXEC)); }

int cs_set_nonblocking(int fd) { return RESULT(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK)); }

int cs_set_cloexec(int fd) { return RESULT(fcntl(fd, F_SETFD, FD_CLOEXEC)); }

int cs_memory_file(const char *name, const void *bytes, int64_t count) {
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0) return -errno;
    const char *at = bytes;
    while (count > 0) {
        int64_t written = write(fd, at, count);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) {
            int code = -errno;
            close(fd);
            return code;
        }
        at += written;
        count -= written;
    }
    lseek(fd, 0, SEEK_SET);
    return fd;
}

int cs_inotify_watch_folder(const char *path) {
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd < 0) return -errno;
    if (inotify_add_watch(fd, path, IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE) < 0) {
        int code = -errno;
        close(fd);
        return code;
    }
    return fd;
}

int64_t cs_raise_open_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return -errno;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) return -errno;
    return (int64_t)limit.rlim_cur;
}

int cs_lock_file(int fd) { return RESULT(flock(fd, LOCK_EX | LOCK_NB)); }

// ---- memory ----

int64_t cs_find(const void *bytes, int64_t count, const void *needle, int64_t needle_count) {
    const char *found = memmem(bytes, count, needle, needle_count);
    return found ? found - (const char *)bytes : -1;
}

// ---- processes ----

// Never above the hard limit that is there already.
static int lower_limit(const struct cs_limit *limit) {
    static const int resources[] = {
        [CS_LIMIT_OPEN_FILES] = RLIMIT_NOFILE,
        [CS_LIMIT_FILE_BYTES] = RLIMIT_FSIZE,
        [CS_LIMIT_ADDRESS_SPACE] = RLIMIT_AS,
        [CS_LIMIT_CORE] = RLIMIT_CORE,
    };
    int resource = resources[limit->resource];
    struct rlimit now;
    if (getrlimit(resource, &now) < 0) return -1;
    if (limit->value < now.rlim_max) now.rlim_max = limit->value;
    if (limit->value < now.rlim_cur || now.rlim_cur > now.rlim_max) now.rlim_cur = now.rlim_max;
    return setrlimit(resource, &now);
}

// Runs in the vfork child, on the parent's suspended stack and memory: system calls only, and what fails is
// told through *error (as glibc's posix_spawn does).
static void run_child(const struct cs_spawn_request *request, int *raised, volatile int *error) {
    struct sigaction standard = {.sa_handler = SIG_DFL};
    for (int signal = 1; signal < NSIG; signal++) sigaction(signal, &standard, NULL);
    if (request->new_session ? setsid() < 0 : setpgid(0, 0) < 0) goto failed;
    if (request->group >= 0 && write(request->group, "0", 1) < 0) goto failed;
    if (request->nice_increment) setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + request->nice_increment);
    if (request->directory && chdir(request->directory) < 0) goto failed;
    // First out of the way of the targets, then into place: dup2 of a descriptor onto itself keeps close-on-exec.
    for (int i = 0; i < request->descriptor_count; i++) {
        raised[i] = fcntl(request->descriptors[i], F_DUPFD_CLOEXEC, request->descriptor_count);
        if (raised[i] < 0) goto failed;
    }
    for (int i = 0; i < request->descriptor_count; i++)
        if (dup2(raised[i], i) < 0) goto failed;
    for (int i = 0; i < request->limit_count; i++)
        if (lower_limit(&request->limits[i]) < 0) goto failed;
    if (request->ruleset >= 0 && cs_landlock_restrict_self(request->ruleset) < 0) goto failed;
    syscall(SYS_close_range, (unsigned)request->descriptor_count, ~0U, 0);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(request->path, request->argv, request->envp);
failed:
    *error = errno ? errno : EINVAL;
    _exit(127);
}

int cs_spawn(const struct cs_spawn_request *request) {
    int raised[16];
    if (request->descriptor_count > 16) return -EINVAL;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    volatile int error = 0;
    pid_t pid = vfork();
    if (pid == 0) run_child(request, raised, &error);
    if (pid < 0) error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        if (pid > 0) while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
        return -error;
    }
    return pid;
}

int cs_pidfd_open(int pid) {
    int fd = RESULT((int)syscall(SYS_pidfd_open, pid, 0));
    return fd;  // the kernel makes it close-on-exec
}

int cs_kill(int pid, int signal) { return RESULT(kill(pid, signal)); }

int cs_become_subreaper(void) { return RESULT(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)); }

int cs_wait(int pid, struct cs_exit *out) {
    int status;
    struct rusage usage;
    pid_t got;
    do got = wait4(pid, &status, WNOHANG, &usage);
    while (got < 0 && errno == EINTR);
    if (got < 0) return -errno;
    if (got == 0) return 0;
    out->pid = got;
    out->code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    out->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    out->user_us = (int64_t)usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec;
    out->system_us = (int64_t)usage.ru_stime.tv_sec * 1000000 + usage.ru_stime.tv_usec;
    out->peak_rss_kb = usage.ru_maxrss;
    return 1;
}

int cs_signal_descriptor(const int *signals, int count) {
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < count; i++) sigaddset(&set, signals[i]);
    int code = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (code) return -code;
    return RESULT(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

int cs_read_signal(int fd) {
    struct signalfd_siginfo info;
    ssize_t got;
    do got = read(fd, &info, sizeof info);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : (int)info.ssi_signo;
}

void cs_ignore_sigpipe(void) { signal(SIGPIPE, SIG_IGN); }

int cs_poll_readable(const int *fds, int *ready, int count, int timeout_ms) {
    struct pollfd set[16];
    if (count > 16) return -EINVAL;
    for (int i = 0; i < count; i++) set[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    int got = poll(set, count, timeout_ms);
    if (got < 0 && errno == EINTR) got = 0;
    for (int i = 0; i < count; i++) ready[i] = got > 0 && set[i].revents != 0;
    return got < 0 ? -errno : got;
}

// ---- sandbox ----

// The kernel's interface (include/uapi/linux/landlock.h of Linux 6.12), which the C library's headers may not have yet.
struct landlock_ruleset { uint64_t handled_fs, handled_net, scoped; };
struct landlock_path { uint64_t allowed; int32_t parent; } __attribute__((packed));
struct landlock_port { uint64_t allowed, port; };
enum { LANDLOCK_VERSION_FLAG = 1, LANDLOCK_PATH = 1, LANDLOCK_PORT = 2 };
enum {
    FS_EXECUTE = 1 << 0, FS_WRITE_FILE = 1 << 1, FS_READ_FILE = 1 << 2, FS_READ_DIR = 1 << 3, FS_MAKE_CHAR = 1 << 6,
    FS_MAKE_BLOCK = 1 << 11, FS_REFER = 1 << 13, FS_TRUNCATE = 1 << 14, FS_IOCTL_DEVICE = 1 << 15,
    FS_OF_FILES = FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEVICE,
};
enum { NET_BIND = 1 << 0, NET_CONNECT = 1 << 1 };
enum { SCOPE_ABSTRACT_SOCKETS = 1 << 0, SCOPE_SIGNALS = 1 << 1 };

int cs_landlock_version(void) {
    static int version;  // the same for as long as the kernel runs
    if (version == 0) version = RESULT((int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_VERSION_FLAG));
    return version;
}

static uint64_t handled_fs(int version) {
    uint64_t all = FS_REFER - 1;  // version 1: all below
    if (version >= 2) all |= FS_REFER;
    if (version >= 3) all |= FS_TRUNCATE;
    if (version >= 5) all |= FS_IOCTL_DEVICE;
    return all;
}

int cs_landlock_ruleset(int bind, int connect) {
    int version = cs_landlock_version();
    if (version < 0) return version;
    struct landlock_ruleset rules = {
        .handled_fs = handled_fs(version),
        .handled_net = version >= 4 ? (bind ? NET_BIND : 0) | (connect ? NET_CONNECT : 0) : 0,
        .scoped = version >= 6 ? SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS : 0,
    };
    // Older kernels know a shorter structure.
    size_t size = version >= 6 ? sizeof rules : version >= 4 ? 16 : 8;
    return RESULT((int)syscall(SYS_landlock_create_ruleset, &rules, size, 0));
}

int cs_landlock_allow_path(int ruleset, const char *path, int rights) {
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0) return -errno;
    uint64_t all = handled_fs(cs_landlock_version());
    uint64_t allowed = FS_EXECUTE | FS_READ_FILE | FS_READ_DIR;
    if (rights == CS_READ_WRITE) allowed = all & ~(FS_MAKE_CHAR | FS_MAKE_BLOCK | FS_IOCTL_DEVICE);
    if (rights == CS_DEVICE) allowed = FS_READ_FILE | FS_READ_DIR | FS_WRITE_FILE | FS_TRUNCATE | FS_IOCTL_DEVICE;
    struct stat info;
    int code = fstat(fd, &info) < 0 ? -errno : 0;
    if (code == 0) {
        if (!S_ISDIR(info.st_mode)) allowed &= FS_OF_FILES;
        struct landlock_path rule = {.allowed = allowed & all, .parent = fd};
        code = RESULT((int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_PATH, &rule, 0));
    }
    close(fd);
    return code;
}

int cs_landlock_allow_port(int ruleset, uint16_t port, int bind, int connect) {
    struct landlock_port rule = {.allowed = (bind ? NET_BIND : 0) | (connect ? NET_CONNECT : 0), .port = port};
    return RESULT((int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_PORT, &rule, 0));
}

int cs_landlock_restrict_self(int ruleset) {
    return RESULT((int)syscall(SYS_landlock_restrict_self, ruleset, 0));
}

int cs_set_no_new_privileges(void) { return RESULT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); }

int cs_drop_capabilities(void) {
    // Who has none may not, and need not, narrow the bounding set.
    for (int capability = 0; capability < 64; capability++) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0, 0, 0}};
    return RESULT((int)syscall(SYS_capset, &header, none));
}

int cs_set_undumpable(void) { return RESULT(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)); }

int cs_is_cgroup2(const char *path) {
    struct statfs info;
    if (statfs(path, &info) < 0) return -errno;
    return info.f_type == 0x63677270;
}

int cs_is_delegated(const char *path) { return getxattr(path, "trusted.delegate", NULL, 0) > 0; }
