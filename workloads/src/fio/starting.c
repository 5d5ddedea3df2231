// Stands in for fio 3.33 in a test: while its main thread starts a job, which blocks its signals, a second thread
// could take them, which makes the answers; of one, it ends without a word, and nothing answers any more.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile sig_atomic_t asked, mute;

static void handler(int number) {
    (void)number;
    if (syscall(SYS_gettid) == getpid())
        asked = 1;
    else
        mute = 1;
}

static void *answers(void *unused) {
    (void)unused;
    while (!mute) {
        usleep(1000);
        if (asked) {
            asked = 0;
            printf("{\n\"timestamp_ms\": 1, \"jobs\": [{\"read\": {\"lat_ns\": {\"mean\": 5.0, \"N\": 7}}, "
                   "\"write\": {\"lat_ns\": {\"mean\": 0.0, \"N\": 0}}}]\n}\n");
            fflush(stdout);
        }
    }
    return NULL;
}

int main(void) {
    pthread_t thread;
    sigset_t all;
    pthread_create(&thread, NULL, answers, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    usleep(300000);
    pthread_sigmask(SIG_UNBLOCK, &all, NULL);
    for (int second = 0; second < 60; second++)
        sleep(1);
    return 0;
}
