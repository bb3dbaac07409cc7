/* The agent's frames: whatever the bytes say, either side refuses them or gets one that lies within them. */
#include "agent/frame.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_request(const struct agent_frame *frame)
{
    static struct agent_request request;
    static uint8_t again[AGENT_FRAME_MAX];
    if (agent_request_read(frame->body, frame->length, &request) < 0)
        return;
    /* What was read is written as it was. */
    ssize_t length = agent_request_write(&request, again);
    CHECK(length == (ssize_t)(AGENT_HEADER + frame->length));
    CHECK(memcmp(again + AGENT_HEADER, frame->body, frame->length) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *bytes = malloc(size + 1);
    if (!bytes)
        return 0;
    memcpy(bytes, data, size);
    for (int side = AGENT_HOST; side <= AGENT_GUEST; side++) {
        for (size_t at = 0; at < size;) {
            struct agent_frame frame;
            ssize_t one = agent_frame_read(bytes + at, size - at, (enum agent_side)side, &frame);
            if (one <= 0)
                break;
            CHECK(frame.body + frame.length == bytes + at + one && (size_t)one <= size - at);
            if (frame.type == AGENT_EXEC)
                read_request(&frame);
            if (frame.type == AGENT_POWER_OFF)
                (void)agent_greeting_read(frame.body);
            at += (size_t)one;
        }
    }
    free(bytes);
    return 0;
}
