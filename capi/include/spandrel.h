/* Spandrel for C and C++: libspandrel.so and libspandrel.a.
 *
 * The library takes the place of the C library's allocation functions. A program needs no change and no
 * header for that: preload it (LD_PRELOAD=libspandrel.so PROGRAM) or link it (cc ... -lspandrel). This
 * header declares what <stdlib.h> and <malloc.h> may not: the functions of C23, and two of jemalloc's.
 *
 * As glibc's: realloc(p, 0) frees and answers NULL; memalign rounds an alignment that is no power of two
 * up to one; errno is ENOMEM wherever the answer is NULL for want of memory, and free leaves errno alone.
 * Blocks of 16 bytes and more are aligned to 16, smaller ones to 8. Every byte that malloc_usable_size
 * answers may be used. malloc_stats prints a snapshot to standard error, malloc_info one as XML;
 * malloc_trim returns what can be returned. mallopt takes glibc's parameters and has no use for them.
 *
 * operator new and delete are not here: the C++ runtime's own call malloc and free. The size that sized delete is given
 * comes here by a second library, for checked mode: LD_PRELOAD="libspandrel.so libspandrel_sized.so" PROGRAM.
 *
 * Misuse that is seen stops the process with one line that says what was done to which address: a block
 * freed twice, an address that is not the start of a block.
 */
#ifndef SPANDREL_H
#define SPANDREL_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#define SPANDREL_NOTHROW noexcept(true)
#else
#define SPANDREL_NOTHROW
#endif

/* C23: free for a block whose size, or alignment and size, the caller knows. */
void free_sized(void *block, size_t size) SPANDREL_NOTHROW;
void free_aligned_sized(void *block, size_t alignment, size_t size) SPANDREL_NOTHROW;

/* Bytes of the block that malloc(size) would answer; with an alignment of 1 << n for flags == n. 0 if
 * size is 0 or there could be none. */
size_t nallocx(size_t size, int flags) SPANDREL_NOTHROW;

/* free for a block of which the caller knows the size (that was asked for, or that nallocx answers) and
 * the alignment (as in nallocx). */
void sdallocx(void *block, size_t size, int flags) SPANDREL_NOTHROW;

/* free under an old name. */
void cfree(void *block) SPANDREL_NOTHROW;

/* Appends a map of the heap to a file, for `spandrel map`: where every span and block lies and what is
 * free. Answers 0, or an error number (EBUSY: another thread is at it). Stops no thread, allocates
 * nothing, and may be called from a signal handler. */
int spandrel_write_map(const char *path) SPANDREL_NOTHROW;

/* Has `callback` called whenever the heap crosses its soft limit (SPANDREL=soft=2GiB, or soft=75%) although all
 * that was free has been returned: with the bytes in use and the soft limit. On a thread of the library's,
 * which is started for it, never inside malloc, so it may allocate and free; nothing may be thrown out of it.
 * Another takes its place; NULL: nobody is told any more. Answers 0, or an error number (EAGAIN: no thread). */
int spandrel_on_pressure(void (*callback)(size_t used, size_t soft)) SPANDREL_NOTHROW;

/* Looks for misuse from now on: 0 no more, 1 yes, 2 with the stacks of allocation and free. Answers 0, or
 * EINVAL. The same at start: SPANDREL=check=on or check=stacks. */
int spandrel_check(int mode) SPANDREL_NOTHROW;

/* Puts one small block in `every` between closed pages from now on, 0: no more. Answers 0, or ENOMEM. The
 * same at start: SPANDREL=guard=5000. */
int spandrel_guard(unsigned every) SPANDREL_NOTHROW;

/* In checked mode: stops the process if `block` is one that operator new of the C++ runtime has not made for `size`, and
 * `alignment` (0: as the forms without one). Says nothing of what is no live block, or was there before the mode was
 * switched on; frees nothing. libspandrel_sized.so calls it before every sized delete. */
void spandrel_sized_delete(const void *block, size_t size, size_t alignment) SPANDREL_NOTHROW;

/* Starts a heap profile with a sample every so many bytes on average (0: 512 KiB; 1: every block). One that
 * is under way is forgotten. Answers 0, or ENOMEM. */
int spandrel_profile_start(size_t interval) SPANDREL_NOTHROW;

/* Stops it; what was sampled can still be written. */
void spandrel_profile_stop(void) SPANDREL_NOTHROW;

/* Writes the profile so far to a file: for pprof, or, if the name ends with .svg, a flame graph of the heap at its
 * peak. Answers 0, or an error number (EINVAL: a flame graph of no sample). */
int spandrel_profile_write(const char *path) SPANDREL_NOTHROW;

#undef SPANDREL_NOTHROW
#ifdef __cplusplus
}
#endif

#endif
