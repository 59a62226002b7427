/* Cuts the power: keeps what is on disk apart from what was written, for the files below one directory.
 *
 *   LD_PRELOAD=power.so POWER_DIR=<a directory> PUNCHLINE_STORAGE__DATA_DIR=<the data directory> punchline serve
 *
 * <POWER_DIR>/plan says "<n> <seed>": at the n-th write or sync of a tracked file, counted from the start, the
 * power goes: the process ends, and <POWER_DIR>/left is what the disk holds. n = 0: never.
 *
 * What the disk holds, no more and no less than POSIX promises:
 *  - the bytes of a file as of its last fsync or fdatasync; of each write after it none, all, or some sectors,
 *    as the seed has it, whatever became of the writes before it;
 *  - a new name once its file or its directory was synced, a change of names once the directory was; of those
 *    that were not, the first few, as the seed has it.
 *
 * Why a preloaded library: it sees every call that std makes, needs no root and no kernel module as a FUSE file
 * system does, and a cut costs no more than a process. It does not see mmap, io_uring and raw system calls; the
 * program uses none of them for files of its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FDS = 65536, SECTOR = 512 };

/* A write that is not synced; without data: a cut to this length. */
struct op {
    struct op *next;
    off_t at;
    size_t len;
    char *data;
};

struct node {
    int durable; /* descriptor of its bytes on disk; -1: a directory */
    int number;
    char *path; /* of a directory */
    struct op *first, **last;
};

struct name {
    char *path;
    struct node *node;
};

struct names {
    struct name *at;
    size_t len, room;
};

/* A change of names that is not synced: `to` is given to the node, `from` is gone; either may be absent. */
struct change {
    char *from, *to;
    struct node *node;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct node *open_files[FDS];
static struct names live, durable;
static struct change *changes;
static size_t changes_len, changes_room;
static char data_dir[PATH_MAX], own_dir[PATH_MAX];
static size_t data_dir_len;
static unsigned long events, cut_at;
static uint64_t seed;
static int nodes;

static void die(const char *what) {
    dprintf(2, "power: %s: %s\n", what, strerror(errno));
    syscall(SYS_exit_group, 99);
    __builtin_unreachable();
}

static uint64_t roll(uint64_t below) {
    uint64_t z = (seed += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

static void *need(void *memory) {
    if (!memory) die("memory");
    return memory;
}

static void put_all(int fd, const char *data, size_t len, off_t at) {
    while (len > 0) {
        ssize_t put = syscall(SYS_pwrite64, fd, data, len, at);
        if (put <= 0) die("pwrite");
        data += put, len -= put, at += put;
    }
}

/* Names. */

static struct node *find(struct names *names, const char *path) {
    for (size_t i = 0; i < names->len; i++)
        if (!strcmp(names->at[i].path, path)) return names->at[i].node;
    return NULL;
}

static void forget(struct names *names, const char *path) {
    for (size_t i = 0; i < names->len; i++)
        if (!strcmp(names->at[i].path, path)) {
            free(names->at[i].path);
            names->at[i] = names->at[--names->len];
            return;
        }
}

static void give(struct names *names, const char *path, struct node *node) {
    forget(names, path);
    if (names->len == names->room) {
        names->room = names->room * 2 + 64;
        names->at = need(realloc(names->at, names->room * sizeof *names->at));
    }
    names->at[names->len++] = (struct name){need(strdup(path)), node};
}

static void changed(const char *from, const char *to, struct node *node) {
    if (changes_len == changes_room) {
        changes_room = changes_room * 2 + 64;
        changes = need(realloc(changes, changes_room * sizeof *changes));
    }
    changes[changes_len++] =
        (struct change){from ? need(strdup(from)) : NULL, to ? need(strdup(to)) : NULL, node};
}

/* Makes the change durable, and the list shorter. */
static void settle(size_t at) {
    struct change change = changes[at];
    memmove(changes + at, changes + at + 1, (--changes_len - at) * sizeof *changes);
    if (change.from) forget(&durable, change.from);
    if (change.to) give(&durable, change.to, change.node);
    free(change.from);
    free(change.to);
}

static int is_in(const char *path, const char *dir) {
    size_t len = strlen(dir);
    return path && !strncmp(path, dir, len) && path[len] == '/' && !strchr(path + len + 1, '/');
}

/* Files. */

static struct node *new_node(void) {
    char path[PATH_MAX + 32];
    struct node *node = need(calloc(1, sizeof *node));
    node->last = &node->first;
    node->number = nodes++;
    snprintf(path, sizeof path, "%s/nodes/%d", own_dir, node->number);
    node->durable = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (node->durable < 0) die(path);
    return node;
}

static void add_op(struct node *node, off_t at, const char *data, size_t len) {
    struct op *op = need(calloc(1, sizeof *op));
    op->at = at;
    op->len = len;
    if (data) memcpy(op->data = need(malloc(len + 1)), data, len);
    *node->last = op;
    node->last = &op->next;
}

static void cut_length(int fd, off_t len) {
    if (syscall(SYS_ftruncate, fd, len)) die("ftruncate");
}

static void settle_ops(struct node *node, int survive) {
    for (struct op *op = node->first, *next; op; op = next) {
        next = op->next;
        uint64_t fate = survive ? 0 : roll(3);
        if (!op->data) {
            if (fate != 1) cut_length(node->durable, op->at);
        } else if (fate == 0) {
            put_all(node->durable, op->data, op->len, op->at);
        } else if (fate == 2) {
            for (size_t from = 0; from < op->len;) {
                size_t to = ((op->at + from) / SECTOR + 1) * SECTOR - op->at;
                if (to > op->len) to = op->len;
                if (roll(2)) put_all(node->durable, op->data + from, to - from, op->at + from);
                from = to;
            }
        }
        free(op->data);
        free(op);
    }
    node->first = NULL;
    node->last = &node->first;
}

static void make_parents(char *path) {
    for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        if (syscall(SYS_mkdirat, AT_FDCWD, path, 0700) && errno != EEXIST) die(path);
        *slash = '/';
    }
}

static void cut(void) {
    for (size_t first = roll(changes_len + 1); first > 0; first--) settle(0);
    char to[2 * PATH_MAX], from[PATH_MAX + 32];
    snprintf(to, sizeof to, "%s/left/", own_dir);
    make_parents(to);
    for (size_t i = 0; i < durable.len; i++) {
        settle_ops(durable.at[i].node, 0);
        snprintf(from, sizeof from, "%s/nodes/%d", own_dir, durable.at[i].node->number);
        snprintf(to, sizeof to, "%s/left/%s", own_dir, durable.at[i].path + data_dir_len + 1);
        make_parents(to);
        if (syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0)) die(to);
    }
    syscall(SYS_exit_group, 137);
}

/* Before each write and sync. */
static void count(void) {
    if (++events == cut_at) cut();
}

static void synced(struct node *node) {
    count();
    if (node->durable < 0) {
        for (size_t i = 0; i < changes_len;)
            if (is_in(changes[i].from, node->path) || is_in(changes[i].to, node->path)) settle(i);
            else i++;
        return;
    }
    settle_ops(node, 1);
    for (size_t i = 0; i < changes_len; i++)
        if (changes[i].node == node && !changes[i].from) {
            settle(i);
            break;
        }
}

static struct node *tracked(int fd) {
    return fd >= 0 && fd < FDS ? open_files[fd] : NULL;
}

/* The path without links, and with it whether it is below the data directory. */
static int resolve(int dir, const char *path, char *into) {
    char joined[2 * PATH_MAX], parent[PATH_MAX];
    if (path[0] == '/') snprintf(joined, sizeof joined, "%s", path);
    else {
        char link[64] = "/proc/self/cwd";
        if (dir != AT_FDCWD) snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t len = readlink(link, parent, sizeof parent - 1);
        if (len < 0) return 0;
        parent[len] = 0;
        snprintf(joined, sizeof joined, "%s/%s", parent, path);
    }
    size_t len = strlen(joined);
    while (len > 1 && joined[len - 1] == '/') joined[--len] = 0;
    char *slash = strrchr(joined, '/');
    const char *base = slash + 1;
    *slash = 0;
    if (!realpath(joined[0] ? joined : "/", parent)) return 0;
    snprintf(into, PATH_MAX, "%s/%s", strcmp(parent, "/") ? parent : "", base);
    return data_dir_len && !strncmp(into, data_dir, data_dir_len) && (!into[data_dir_len] || into[data_dir_len] == '/');
}

/* At the start everything is on disk. */
static int take_in(const char *path, const struct stat *stat, int kind, struct FTW *where) {
    (void)stat, (void)where;
    if (kind != FTW_F) return 0;
    struct node *node = new_node();
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    char buffer[65536];
    off_t at = 0;
    for (ssize_t got; fd >= 0 && (got = syscall(SYS_read, fd, buffer, sizeof buffer)) > 0; at += got)
        put_all(node->durable, buffer, got, at);
    if (fd >= 0) syscall(SYS_close, fd);
    give(&live, path, node);
    give(&durable, path, node);
    return 0;
}

static int drop(const char *path, const struct stat *stat, int kind, struct FTW *where) {
    (void)stat, (void)where;
    return syscall(SYS_unlinkat, AT_FDCWD, path, kind == FTW_DP ? AT_REMOVEDIR : 0) && errno != ENOENT;
}

__attribute__((constructor)) static void begin(void) {
    const char *data = getenv("PUNCHLINE_STORAGE__DATA_DIR"), *own = getenv("POWER_DIR");
    /* Whatever the program starts is not tracked. */
    unsetenv("LD_PRELOAD");
    if (!data || !own) return;
    char path[PATH_MAX + 32], parent[PATH_MAX];
    snprintf(own_dir, sizeof own_dir, "%s", own);
    snprintf(path, sizeof path, "%s/plan", own);
    FILE *plan = fopen(path, "r");
    if (!plan || fscanf(plan, "%lu %lu", &cut_at, &seed) != 2) die(path);
    fclose(plan);
    snprintf(path, sizeof path, "%s/nodes", own);
    nftw(path, drop, 16, FTW_DEPTH | FTW_PHYS);
    mkdir(path, 0700);
    snprintf(parent, sizeof parent, "%s", data);
    char *slash = strrchr(parent, '/');
    *slash = 0;
    if (!realpath(parent, path)) die(parent);
    snprintf(data_dir, sizeof data_dir, "%s/%s", path, slash + 1);
    nftw(data_dir, take_in, 16, FTW_PHYS);
    data_dir_len = strlen(data_dir);
}

/* The calls. */

static int open_at(int dir, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    pthread_mutex_lock(&lock);
    int ours = resolve(dir, path, full);
    int fd = syscall(SYS_openat, dir, path, flags, mode);
    if (fd >= 0 && fd < FDS) open_files[fd] = NULL;
    if (ours && fd >= 0 && fd < FDS) {
        struct stat stat;
        if (fstat(fd, &stat)) die("fstat");
        if (S_ISDIR(stat.st_mode)) {
            struct node *node = need(calloc(1, sizeof *node));
            node->durable = -1;
            node->path = need(strdup(full));
            open_files[fd] = node;
        } else {
            struct node *node = find(&live, full);
            if (!node) {
                node = new_node();
                give(&live, full, node);
                changed(NULL, full, node);
            } else if (flags & O_TRUNC) {
                count();
                add_op(node, 0, NULL, 0);
            }
            open_files[fd] = node;
        }
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE(flags)                                                                                                    \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list list;                                                                                                  \
        va_start(list, flags);                                                                                         \
        mode = va_arg(list, mode_t);                                                                                   \
        va_end(list);                                                                                                  \
    }

int open(const char *path, int flags, ...) {
    MODE(flags)
    return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags)
    return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int dir, const char *path, int flags, ...) {
    MODE(flags)
    return open_at(dir, path, flags, mode);
}

int openat64(int dir, const char *path, int flags, ...) {
    MODE(flags)
    return open_at(dir, path, flags, mode);
}

int close(int fd) {
    pthread_mutex_lock(&lock);
    if (fd >= 0 && fd < FDS) open_files[fd] = NULL;
    int closed = syscall(SYS_close, fd);
    pthread_mutex_unlock(&lock);
    return closed;
}

int fcntl(int fd, int command, ...) {
    va_list list;
    va_start(list, command);
    long argument = va_arg(list, long);
    va_end(list);
    pthread_mutex_lock(&lock);
    int answer = syscall(SYS_fcntl, fd, command, argument);
    if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && answer >= 0 && answer < FDS)
        open_files[answer] = tracked(fd);
    pthread_mutex_unlock(&lock);
    return answer;
}

int fcntl64(int fd, int command, ...) {
    va_list list;
    va_start(list, command);
    long argument = va_arg(list, long);
    va_end(list);
    return fcntl(fd, command, argument);
}

/* `at` < 0: where the descriptor stands. */
static ssize_t put(int fd, const char *data, size_t len, off_t at) {
    pthread_mutex_lock(&lock);
    struct node *node = tracked(fd);
    int stands = at < 0;
    if (node) {
        count();
        if (stands) {
            struct stat stat;
            int appends = syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND;
            at = appends && !fstat(fd, &stat) ? stat.st_size : syscall(SYS_lseek, fd, 0, SEEK_CUR);
        }
    }
    ssize_t done = stands ? syscall(SYS_write, fd, data, len) : syscall(SYS_pwrite64, fd, data, len, at);
    int error = errno;
    if (node && done > 0) add_op(node, at, data, done);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

ssize_t write(int fd, const void *data, size_t len) {
    /* Sockets and pipes may wait, and must not do so for us. */
    return tracked(fd) ? put(fd, data, len, -1) : syscall(SYS_write, fd, data, len);
}

ssize_t writev(int fd, const struct iovec *parts, int count_of) {
    if (!tracked(fd)) return syscall(SYS_writev, fd, parts, count_of);
    ssize_t sum = 0;
    for (int i = 0; i < count_of; i++) {
        ssize_t done = put(fd, parts[i].iov_base, parts[i].iov_len, -1);
        if (done < 0) return sum ? sum : done;
        sum += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return sum;
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t at) {
    return put(fd, data, len, at);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off_t at) {
    return put(fd, data, len, at);
}

static int set_length(int fd, off_t len) {
    pthread_mutex_lock(&lock);
    struct node *node = tracked(fd);
    if (node) count();
    int done = syscall(SYS_ftruncate, fd, len);
    if (node && !done) add_op(node, len, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t len) {
    return set_length(fd, len);
}

int ftruncate64(int fd, off_t len) {
    return set_length(fd, len);
}

/* Syncs of files of ours are not passed on. */
static int sync_file(int fd, long call) {
    pthread_mutex_lock(&lock);
    struct node *node = tracked(fd);
    if (node) synced(node);
    pthread_mutex_unlock(&lock);
    return node ? 0 : syscall(call, fd);
}

int fsync(int fd) {
    return sync_file(fd, SYS_fsync);
}

int fdatasync(int fd) {
    return sync_file(fd, SYS_fdatasync);
}

/* Copies that the kernel makes are made by hand, so that they are seen. */
ssize_t copy_file_range(int in, off_t *in_at, int out, off_t *out_at, size_t len, unsigned flags) {
    (void)in, (void)in_at, (void)out, (void)out_at, (void)len, (void)flags;
    errno = ENOSYS;
    return -1;
}

ssize_t sendfile64(int out, int in, off_t *at, size_t len) {
    (void)out, (void)in, (void)at, (void)len;
    errno = ENOSYS;
    return -1;
}

static void relocate(char **path, const char *from, const char *to) {
    size_t len = strlen(from);
    if (!*path || strncmp(*path, from, len) || (*path)[len] != '/') return;
    char moved[2 * PATH_MAX];
    snprintf(moved, sizeof moved, "%s%s", to, *path + len);
    free(*path);
    *path = need(strdup(moved));
}

static int move(int from_dir, const char *from, int to_dir, const char *to) {
    char full_from[PATH_MAX], full_to[PATH_MAX];
    pthread_mutex_lock(&lock);
    int ours = resolve(from_dir, from, full_from) && resolve(to_dir, to, full_to);
    if (ours) count();
    int done = syscall(SYS_renameat2, from_dir, from, to_dir, to, 0);
    int error = errno;
    struct stat stat;
    if (ours && !done && !lstat(full_to, &stat) && S_ISDIR(stat.st_mode)) {
        /* A directory takes with it what is below: at once, as nothing here depends on when. */
        for (size_t i = 0; i < live.len; i++) relocate(&live.at[i].path, full_from, full_to);
        for (size_t i = 0; i < durable.len; i++) relocate(&durable.at[i].path, full_from, full_to);
        for (size_t i = 0; i < changes_len; i++) {
            relocate(&changes[i].from, full_from, full_to);
            relocate(&changes[i].to, full_from, full_to);
        }
    } else if (ours && !done) {
        struct node *node = find(&live, full_from);
        if (!node) die(full_from);
        forget(&live, full_from);
        give(&live, full_to, node);
        changed(full_from, full_to, node);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

int rename(const char *from, const char *to) {
    return move(AT_FDCWD, from, AT_FDCWD, to);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    return move(from_dir, from, to_dir, to);
}

static int remove_name(int dir, const char *path, int flags) {
    char full[PATH_MAX];
    pthread_mutex_lock(&lock);
    int ours = !(flags & AT_REMOVEDIR) && resolve(dir, path, full);
    if (ours) count();
    int done = syscall(SYS_unlinkat, dir, path, flags);
    int error = errno;
    if (ours && !done) {
        struct node *node = find(&live, full);
        forget(&live, full);
        changed(full, NULL, node);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

int unlink(const char *path) {
    return remove_name(AT_FDCWD, path, 0);
}

int unlinkat(int dir, const char *path, int flags) {
    return remove_name(dir, path, flags);
}
