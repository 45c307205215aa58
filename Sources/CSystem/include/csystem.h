// The system calls that Swift's Glibc module does not reach, as plain C functions.
//
// Rules of this header: no system includes (they would redefine types of the Glibc module), and every
// function answers a value >= 0, or the negative errno.
#ifndef CSYSTEM_H
#define CSYSTEM_H

#include <stdint.h>

// ---- epoll(7), eventfd(2) ----
enum { CS_READ = 1, CS_WRITE = 2, CS_HANGUP = 4, CS_EDGE = 8 };
struct cs_event {
    uint32_t ready;
    uint64_t data;
};
int cs_epoll_create(void);
int cs_epoll_add(int epoll, int fd, uint32_t interest, uint64_t data);
int cs_epoll_modify(int epoll, int fd, uint32_t interest, uint64_t data);
int cs_epoll_remove(int epoll, int fd);
int cs_epoll_wait(int epoll, struct cs_event *events, int capacity, int timeout_ms);
int cs_eventfd(void);
void cs_eventfd_signal(int fd);
void cs_eventfd_clear(int fd);
int64_t cs_monotonic_ns(void);

// ---- sockets ----
// A listening TCP socket on a numeric address or a name; `bound_port` receives the real port.
int cs_listen(const char *host, uint16_t port, int backlog, uint16_t *bound_port);
// The next connection, non-blocking and close-on-exec; `address` receives the peer's numeric address.
int cs_accept(int listener, char *address, int address_size);
int cs_connect(const char *host, uint16_t port);
// send(2) without SIGPIPE.
int64_t cs_send(int fd, const void *bytes, int64_t count);
int cs_shutdown_write(int fd);

// ---- descriptors ----
int cs_pipe(int ends[2]);  // both close-on-exec
int cs_set_nonblocking(int fd);
int cs_set_cloexec(int fd);
// An anonymous file that holds `count` bytes, its offset at the start.
int cs_memory_file(const char *name, const void *bytes, int64_t count);
int cs_inotify_watch_folder(const char *path);
// Raises the soft limit of open files to the hard one; answers the new soft limit.
int64_t cs_raise_open_file_limit(void);
int cs_lock_file(int fd);  // exclusive, non-blocking (flock); -EWOULDBLOCK when held

// ---- memory ----
// Where `needle` begins in `bytes` (memmem(3)), or -1.
int64_t cs_find(const void *bytes, int64_t count, const void *needle, int64_t needle_count);

// ---- processes ----
enum { CS_LIMIT_OPEN_FILES, CS_LIMIT_FILE_BYTES, CS_LIMIT_ADDRESS_SPACE, CS_LIMIT_CORE };
struct cs_limit {
    int resource;
    uint64_t value;
};
struct cs_spawn_request {
    const char *path;         // the program, not searched on PATH
    char *const *argv;        // ends with NULL
    char *const *envp;        // ends with NULL
    const char *directory;    // NULL: the caller's
    const int *descriptors;   // the child's descriptor i is descriptors[i] of the caller; all others are closed
    int descriptor_count;
    int new_session;          // 1: setsid, 0: a process group of its own
    int nice_increment;
    const struct cs_limit *limits;
    int limit_count;
    int ruleset;              // a Landlock ruleset to put on, or -1
    int group;                // cgroup.procs of the group to enter, open for writing, or -1
};
// Starts a program; errors of the child up to and with exec are this call's errors.
int cs_spawn(const struct cs_spawn_request *request);
int cs_pidfd_open(int pid);
int cs_kill(int pid, int signal);  // kill(2), for process groups too (negative pid)
int cs_become_subreaper(void);
struct cs_exit {
    int32_t pid;
    int32_t code;    // -1 when ended by a signal
    int32_t signal;  // 0 when it exited
    int64_t user_us, system_us, peak_rss_kb;  // of the process and all that it waited for
};
// wait4(2) without blocking: 1 and *out, 0 when nothing has ended, -ECHILD when there is no child.
int cs_wait(int pid, struct cs_exit *out);
// Blocks these signals and answers a descriptor that reads them.
int cs_signal_descriptor(const int *signals, int count);
int cs_read_signal(int fd);  // the signal's number, or -EAGAIN
void cs_ignore_sigpipe(void);
// Waits until one of the descriptors is readable or hung up: the number of ready ones; ready[i] is set to 0 or 1.
int cs_poll_readable(const int *fds, int *ready, int count, int timeout_ms);

// ---- sandbox: landlock(7), prctl(2) ----
// The kernel's Landlock version (its ABI), or -ENOSYS, -EOPNOTSUPP.
int cs_landlock_version(void);
// An empty ruleset that handles all that this version of the kernel can: what no rule allows is refused. With
// `bind` or `connect` the TCP ports too, where the kernel can (version 4).
int cs_landlock_ruleset(int bind, int connect);
enum { CS_READ_EXECUTE = 0, CS_READ_WRITE = 1, CS_DEVICE = 2 };
// Allows what is at and below `path`.
int cs_landlock_allow_path(int ruleset, const char *path, int rights);
int cs_landlock_allow_port(int ruleset, uint16_t port, int bind, int connect);
// Puts a ruleset on this thread and all that it starts; for good.
int cs_landlock_restrict_self(int ruleset);
int cs_set_no_new_privileges(void);
// Gives up all capabilities (capabilities(7)), for this process and all that it starts.
int cs_drop_capabilities(void);
// Closes this process' memory and environment to other processes of its user (ptrace, /proc/PID/mem and environ).
int cs_set_undumpable(void);
int cs_is_cgroup2(const char *path);     // 1 or 0
int cs_is_delegated(const char *path);  // whether systemd marked the control group as its user's own: 1 or 0
#endif
