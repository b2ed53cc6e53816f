/* Records what a process does to the files below a folder: loaded with LD_PRELOAD, it writes a row of entries, each made
 * under one lock together with the call it tells of, so that their order is the order in which things happened.
 *
 *   WEIR_RECORD_ROOT  only what is below this folder is recorded
 *   WEIR_RECORD       where to: entries are appended
 *
 * An entry is a head (below, all numbers as this machine has them) and `a_len` + `b_len` bytes:
 *
 *   'c' made a file        a: path, node             'm' made a folder     a: path, node
 *   'w' wrote              node, at, a: the bytes    't' has a new length  node, at: the length
 *   'r' renamed            a: from, b: to            'u' removed a name    a: path
 *   's' a sync begins      node, at: its ordinal     'S' has returned      node, at: that ordinal
 *   'p' said (standard output)  a: the bytes
 *
 * A sync is no lock for the others: what is written while it is under way comes between its two entries.
 * Whoever reads the record finds out whether a call was overlooked: all of it together must give what is on the disk.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct head {
    uint32_t a_len, b_len;
    uint64_t node, at;
    uint8_t what;
    uint8_t unused[7];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t syncs;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int record_fd(void) {
    static int fd = -1;
    const char *path = getenv("WEIR_RECORD");
    if (fd < 0 && path) fd = REAL(open)(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    return fd;
}

static void all(int fd, const void *bytes, size_t len) {
    const char *at = bytes;
    while (len > 0) {
        ssize_t n = REAL(write)(fd, at, len);
        if (n <= 0) abort();
        at += n;
        len -= n;
    }
}

static void tell(char what, uint64_t node, uint64_t at, const void *a, size_t a_len, const void *b, size_t b_len) {
    int fd = record_fd(), error = errno;
    struct head head = {.a_len = a_len, .b_len = b_len, .node = node, .at = at, .what = what};
    if (fd < 0) return;
    all(fd, &head, sizeof head);
    all(fd, a, a_len);
    all(fd, b, b_len);
    errno = error;
}

static int inside(const char *path) {
    const char *root = getenv("WEIR_RECORD_ROOT");
    size_t len = root ? strlen(root) : 0;
    return root && strncmp(path, root, len) == 0 && (path[len] == '/' || path[len] == 0);
}

/* Where a name is, made absolute. */
static void absolute(int dir, const char *name, char *path) {
    char base[PATH_MAX], link[64];
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return;
    }
    ssize_t len = -1;
    if (dir == AT_FDCWD) {
        if (getcwd(base, sizeof base)) len = strlen(base);
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        len = readlink(link, base, sizeof base - 1);
    }
    if (len < 0) len = 0;
    base[len] = 0;
    snprintf(path, PATH_MAX, "%.*s/%s", (int)len, base, name);
}

static int fd_inside(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0) return 0;
    path[len] = 0;
    return inside(path);
}

static uint64_t node_of(int fd) {
    struct stat st;
    return fstat(fd, &st) ? 0 : st.st_ino;
}

static int opened(int dir, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    struct stat st;
    absolute(dir, name, path);
    if (!inside(path) || !(flags & (O_CREAT | O_TRUNC))) return REAL(openat)(dir, name, flags, mode);
    pthread_mutex_lock(&lock);
    int was_there = stat(path, &st) == 0;
    int fd = REAL(openat)(dir, name, flags, mode);
    if (fd >= 0 && !was_there) tell('c', node_of(fd), 0, path, strlen(path), NULL, 0);
    else if (fd >= 0 && (flags & O_TRUNC)) tell('t', node_of(fd), 0, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int openat(int dir, const char *name, int flags, ...) { MODE(flags) return opened(dir, name, flags, mode); }
int openat64(int dir, const char *name, int flags, ...) { MODE(flags) return opened(dir, name, flags, mode); }

/* A write through a descriptor opened with O_SYNC or O_DSYNC is durable when it returns. */
static void wrote(int fd, uint64_t at, const void *bytes, ssize_t len) {
    tell('w', node_of(fd), at, bytes, len, NULL, 0);
    if (fcntl(fd, F_GETFL) & (O_SYNC | O_DSYNC)) {
        uint64_t ordinal = ++syncs;
        tell('s', node_of(fd), ordinal, NULL, 0, NULL, 0);
        tell('S', node_of(fd), ordinal, NULL, 0, NULL, 0);
    }
}

ssize_t write(int fd, const void *bytes, size_t len) {
    int said = fd == 1, ours = !said && fd_inside(fd);
    if (!said && !ours) return REAL(write)(fd, bytes, len);
    pthread_mutex_lock(&lock);
    struct stat st;
    uint64_t at = (fcntl(fd, F_GETFL) & O_APPEND) && !fstat(fd, &st) ? st.st_size : lseek(fd, 0, SEEK_CUR);
    ssize_t n = REAL(write)(fd, bytes, len);
    if (n > 0 && said) tell('p', 0, 0, bytes, n, NULL, 0);
    else if (n > 0) wrote(fd, at, bytes, n);
    pthread_mutex_unlock(&lock);
    return n;
}

static ssize_t placed(int fd, const void *bytes, size_t len, off64_t at) {
    if (!fd_inside(fd)) return REAL(pwrite64)(fd, bytes, len, at);
    pthread_mutex_lock(&lock);
    ssize_t n = REAL(pwrite64)(fd, bytes, len, at);
    if (n > 0) wrote(fd, at, bytes, n);
    pthread_mutex_unlock(&lock);
    return n;
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) { return placed(fd, bytes, len, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) { return placed(fd, bytes, len, at); }

/* One piece is as good an answer as all of them. */
ssize_t writev(int fd, const struct iovec *pieces, int count) {
    for (int at = 0; at < count; at++)
        if (pieces[at].iov_len > 0) return write(fd, pieces[at].iov_base, pieces[at].iov_len);
    return 0;
}

static int sized(int fd, off64_t len) {
    if (!fd_inside(fd)) return REAL(ftruncate64)(fd, len);
    pthread_mutex_lock(&lock);
    int answer = REAL(ftruncate64)(fd, len);
    if (answer == 0) tell('t', node_of(fd), len, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return answer;
}

int ftruncate(int fd, off_t len) { return sized(fd, len); }
int ftruncate64(int fd, off64_t len) { return sized(fd, len); }

static int allocated(int fd, int mode, off64_t at, off64_t len) {
    if (!fd_inside(fd)) return REAL(fallocate64)(fd, mode, at, len);
    pthread_mutex_lock(&lock);
    int answer = REAL(fallocate64)(fd, mode, at, len);
    struct stat st;
    if (answer == 0 && !fstat(fd, &st)) tell('t', st.st_ino, st.st_size, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return answer;
}

int fallocate(int fd, int mode, off_t at, off_t len) { return allocated(fd, mode, at, len); }
int fallocate64(int fd, int mode, off64_t at, off64_t len) { return allocated(fd, mode, at, len); }
int posix_fallocate(int fd, off_t at, off_t len) { return allocated(fd, 0, at, len) ? errno : 0; }
int posix_fallocate64(int fd, off64_t at, off64_t len) { return allocated(fd, 0, at, len) ? errno : 0; }

static int moved(int from_dir, const char *from, int to_dir, const char *to) {
    char from_path[PATH_MAX], to_path[PATH_MAX];
    absolute(from_dir, from, from_path);
    absolute(to_dir, to, to_path);
    pthread_mutex_lock(&lock);
    int answer = REAL(renameat)(from_dir, from, to_dir, to);
    if (answer == 0 && inside(from_path)) tell('r', 0, 0, from_path, strlen(from_path), to_path, strlen(to_path));
    pthread_mutex_unlock(&lock);
    return answer;
}

int rename(const char *from, const char *to) { return moved(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int from_dir, const char *from, int to_dir, const char *to) { return moved(from_dir, from, to_dir, to); }

static int made(int dir, const char *name, mode_t mode) {
    char path[PATH_MAX];
    struct stat st;
    absolute(dir, name, path);
    pthread_mutex_lock(&lock);
    int answer = REAL(mkdirat)(dir, name, mode);
    if (answer == 0 && inside(path) && !stat(path, &st)) tell('m', st.st_ino, 0, path, strlen(path), NULL, 0);
    pthread_mutex_unlock(&lock);
    return answer;
}

int mkdir(const char *name, mode_t mode) { return made(AT_FDCWD, name, mode); }
int mkdirat(int dir, const char *name, mode_t mode) { return made(dir, name, mode); }

static int removed(int dir, const char *name, int flags) {
    char path[PATH_MAX];
    absolute(dir, name, path);
    pthread_mutex_lock(&lock);
    int answer = REAL(unlinkat)(dir, name, flags);
    if (answer == 0 && inside(path)) tell('u', 0, 0, path, strlen(path), NULL, 0);
    pthread_mutex_unlock(&lock);
    return answer;
}

int unlink(const char *name) { return removed(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return removed(AT_FDCWD, name, AT_REMOVEDIR); }
int unlinkat(int dir, const char *name, int flags) { return removed(dir, name, flags); }

static int synced(int fd, int (*real)(int)) {
    if (!fd_inside(fd)) return real(fd);
    uint64_t node = node_of(fd);
    pthread_mutex_lock(&lock);
    uint64_t ordinal = ++syncs;
    tell('s', node, ordinal, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    int answer = real(fd);
    pthread_mutex_lock(&lock);
    if (answer == 0) tell('S', node, ordinal, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return answer;
}

int fsync(int fd) { return synced(fd, REAL(fsync)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }
