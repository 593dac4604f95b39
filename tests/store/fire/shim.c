/* Between a process and its files, for tests/store/fire: loaded by LD_PRELOAD into a process that has a store.
 *
 * FIRE_FOLDER  the folder that it concerns itself with; all else passes.
 * FIRE_LOG     if set, each write, truncation, removal and sync in the folder is appended to this file, in the one order
 *              in which they happened:
 *                kind u8 | path length u32 | offset u64 | data length u32 | path | data     (little endian)
 * FIRE_FAIL    if this file exists, a sync of a file whose name ends in -wal fails with EIO and writes nothing back.
 * FIRE_KILL    if this file exists, the process is killed where it would sync such a file.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { WRITE = 1, TRUNCATE = 2, SYNC = 3, UNLINK = 4, SYNC_FAILED = 5 };

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -2;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_unlink)(const char *);

__attribute__((constructor)) static void find(void) {
  real_write = dlsym(RTLD_NEXT, "write");
  real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
  real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_unlink = dlsym(RTLD_NEXT, "unlink");
  const char *log = getenv("FIRE_LOG");
  log_fd = log ? open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644) : -1;
}

/* Whether the file is in the folder; its path. */
static int concerns(int fd, char *path, size_t size) {
  const char *folder = getenv("FIRE_FOLDER");
  char link[64];
  if (!folder) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, size - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return strncmp(path, folder, strlen(folder)) == 0;
}

static void note(uint8_t kind, const char *path, uint64_t offset, const void *data, uint32_t length) {
  if (log_fd < 0) return;
  int saved = errno;
  uint32_t path_length = strlen(path);
  size_t size = 17 + path_length + length;
  unsigned char *record = malloc(size);
  record[0] = kind;
  memcpy(record + 1, &path_length, 4);
  memcpy(record + 5, &offset, 8);
  memcpy(record + 13, &length, 4);
  memcpy(record + 17, path, path_length);
  if (length) memcpy(record + 17 + path_length, data, length);
  if (real_write(log_fd, record, size) != (ssize_t)size) abort();
  free(record);
  errno = saved;
}

ssize_t write(int fd, const void *data, size_t length) {
  char path[4096];
  if (!concerns(fd, path, sizeof path)) return real_write(fd, data, length);
  pthread_mutex_lock(&order);
  ssize_t done = real_write(fd, data, length);
  if (done > 0) note(WRITE, path, (uint64_t)lseek(fd, 0, SEEK_CUR) - done, data, done);
  pthread_mutex_unlock(&order);
  return done;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) {
  char path[4096];
  if (!concerns(fd, path, sizeof path)) return real_pwrite(fd, data, length, offset);
  pthread_mutex_lock(&order);
  ssize_t done = real_pwrite(fd, data, length, offset);
  if (done > 0) note(WRITE, path, offset, data, done);
  pthread_mutex_unlock(&order);
  return done;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }

int ftruncate64(int fd, off_t length) {
  char path[4096];
  if (!concerns(fd, path, sizeof path)) return real_ftruncate(fd, length);
  pthread_mutex_lock(&order);
  int result = real_ftruncate(fd, length);
  if (result == 0) note(TRUNCATE, path, length, NULL, 0);
  pthread_mutex_unlock(&order);
  return result;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int unlink(const char *path) {
  const char *folder = getenv("FIRE_FOLDER");
  if (!folder || strncmp(path, folder, strlen(folder)) != 0) return real_unlink(path);
  pthread_mutex_lock(&order);
  int result = real_unlink(path);
  if (result == 0) note(UNLINK, path, 0, NULL, 0);
  pthread_mutex_unlock(&order);
  return result;
}

static int is_there(const char *variable) {
  const char *path = getenv(variable);
  return path && access(path, F_OK) == 0;
}

static int sync_with(int (*real)(int), int fd) {
  char path[4096];
  if (!concerns(fd, path, sizeof path)) return real(fd);
  size_t length = strlen(path);
  int is_log = length > 4 && strcmp(path + length - 4, "-wal") == 0;
  pthread_mutex_lock(&order);
  int result;
  if (is_log && is_there("FIRE_KILL")) raise(SIGKILL);
  if (is_log && is_there("FIRE_FAIL")) {
    note(SYNC_FAILED, path, 0, NULL, 0);
    errno = EIO;
    result = -1;
  } else {
    result = real(fd);
    if (result == 0) note(SYNC, path, 0, NULL, 0);
  }
  pthread_mutex_unlock(&order);
  return result;
}

int fsync(int fd) { return sync_with(real_fsync, fd); }
int fdatasync(int fd) { return sync_with(real_fdatasync, fd); }
