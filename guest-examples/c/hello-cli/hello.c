/* A plain program, with no line written for this host: the body of a request is its standard input, its output is the
 * answer, its exit code the outcome. */

#include <stdio.h>

/* Not on the stack: a program for WASI has 64 KiB of it unless it is linked with more. */
static char chunk[64 * 1024];

int main(void) {
    size_t length;

    fputs("Hello from C. You sent:\n", stdout);
    while ((length = fread(chunk, 1, sizeof chunk, stdin)) > 0) {
        if (fwrite(chunk, 1, length, stdout) != length) {
            return 1;
        }
    }
    return ferror(stdin) || fflush(stdout) != 0;
}
