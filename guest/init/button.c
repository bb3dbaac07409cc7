#include "init.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/time.h>

/* include/uapi/linux/input.h and input-event-codes.h: musl comes without the kernel's headers. */
struct input_event {
    struct timeval time;
    uint16_t type;
    uint16_t code;
    int32_t value;
};
#define EV_KEY     1
#define KEY_POWER  116
#define KEY_BYTES  (0x300 / 8)                                    /* KEY_CNT bits */
#define KEYS_OF_IT _IOC(_IOC_READ, 'E', 0x20 + EV_KEY, KEY_BYTES) /* EVIOCGBIT(EV_KEY, KEY_BYTES) */

/* A microVM has one button or two. */
#define INPUTS_MAX 8

int button_open(void)
{
    for (int i = 0; i < INPUTS_MAX; i++) {
        char path[32];
        uint8_t keys[KEY_BYTES] = {0};
        snprintf(path, sizeof(path), "/dev/input/event%d", i);
        CLEANUP_FD int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0 && ioctl(fd, KEYS_OF_IT, keys) >= 0 && (keys[KEY_POWER / 8] >> KEY_POWER % 8 & 1) != 0)
            return fd_steal(&fd);
    }
    return -1;
}

bool button_pressed(int fd)
{
    struct input_event event;
    bool pressed = false;
    while (read(fd, &event, sizeof(event)) == (ssize_t)sizeof(event))
        pressed |= event.type == EV_KEY && event.code == KEY_POWER && event.value == 1;
    return pressed;
}
