/* A layer under a process's files that remembers what a power cut would leave: loaded with LD_PRELOAD, it notes the
 * contents of a file whenever fsync or fdatasync on it has returned, and the names in a folder whenever fsync on that has.
 *
 *   WEIR_DISK_ROOT    only what is below this folder is looked at
 *   WEIR_DISK_SHADOW  where the notes go: file-INODE-BIRTH has the contents, folder-INODE-BIRTH a line "INODE-BIRTH NAME" per name
 *   WEIR_DISK_GATE    if set: every fdatasync makes GATE.entered and waits until GATE.open is there
 *   WEIR_DISK_FAIL    if set, and such a file exists: fsync and fdatasync fail with EIO; if there is text in it, only of files and
 *                     folders whose path ends with that
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void name_of(const struct statx *st, char *name) {
    sprintf(name, "%llu-%lld%09u", (unsigned long long)st->stx_ino, (long long)st->stx_btime.tv_sec, st->stx_btime.tv_nsec);
}

static int within_root(int fd) {
    char link[64], path[4096];
    const char *root = getenv("WEIR_DISK_ROOT");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (!root || len < 0) return 0;
    path[len] = 0;
    return strncmp(path, root, strlen(root)) == 0;
}

static void note_file(int fd, FILE *out) {
    char link[64], buffer[65536];
    ssize_t len;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int in = open(link, O_RDONLY);
    while (in >= 0 && (len = read(in, buffer, sizeof buffer)) > 0) fwrite(buffer, 1, len, out);
    if (in >= 0) close(in);
}

static void note_folder(int fd, FILE *out) {
    int in = openat(fd, ".", O_RDONLY | O_DIRECTORY);
    DIR *dir = in < 0 ? NULL : fdopendir(in);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        struct statx st;
        char name[64];
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (statx(fd, entry->d_name, 0, STATX_BASIC_STATS | STATX_BTIME, &st)) continue;
        name_of(&st, name);
        fprintf(out, "%s %s %s\n", S_ISDIR(st.stx_mode) ? "folder" : "file", name, entry->d_name);
    }
    if (dir) closedir(dir);
}

/* Written beside and renamed, so that a note is whole even if the process is killed meanwhile. */
static void note(int fd) {
    struct statx st;
    char name[64], path[4200], whole[4200];
    const char *shadow = getenv("WEIR_DISK_SHADOW");
    if (!shadow || !within_root(fd) || statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &st)) return;
    int folder = S_ISDIR(st.stx_mode);
    name_of(&st, name);
    snprintf(whole, sizeof whole, "%s/%s-%s", shadow, folder ? "folder" : "file", name);
    snprintf(path, sizeof path, "%s.%d", whole, gettid());
    FILE *out = fopen(path, "w");
    if (!out) return;
    if (folder) note_folder(fd, out); else note_file(fd, out);
    fclose(out);
    rename(path, whole);
}

static int exists(const char *path, const char *ending) {
    char whole[4200];
    snprintf(whole, sizeof whole, "%s%s", path, ending);
    return access(whole, F_OK) == 0;
}

static int fails(int fd) {
    const char *fail = getenv("WEIR_DISK_FAIL");
    char ending[256], link[64], path[4096];
    int in = fail ? open(fail, O_RDONLY | O_CLOEXEC) : -1;
    if (in < 0 || !within_root(fd)) {
        if (in >= 0) close(in);
        return 0;
    }
    ssize_t length = read(in, ending, sizeof ending - 1);
    close(in);
    if (length < 0) length = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < length || memcmp(path + len - length, ending, length)) return 0;
    errno = EIO;
    return 1;
}

static void wait_at_gate(void) {
    const char *gate = getenv("WEIR_DISK_GATE");
    if (!gate) return;
    char entered[4200];
    snprintf(entered, sizeof entered, "%s.entered", gate);
    close(open(entered, O_CREAT | O_WRONLY, 0600));
    while (!exists(gate, ".open")) usleep(1000);
}

int fsync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    if (fails(fd)) return -1;
    int answer = real(fd);
    if (answer == 0) note(fd);
    return answer;
}

int fdatasync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    if (within_root(fd)) wait_at_gate();
    if (fails(fd)) return -1;
    int answer = real(fd);
    if (answer == 0) note(fd);
    return answer;
}
