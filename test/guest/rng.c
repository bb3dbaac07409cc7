/* virtio-rng fills what it is given, and not twice with the same. */
#include "lib/virtio.h"

#define SIZE 256u

void guest_main(const struct start_info *info)
{
    (void)info;
    uintptr_t device = device_find(ID_RNG);
    struct queue queue;
    device_begin(device, FEATURE_VERSION_1);
    queue_setup(device, 0, 8, &queue);
    device_go(device);
    uint8_t *random = pages(2 * SIZE);
    for (uint16_t i = 0; i < 2; i++) {
        desc_set(&queue, i, random + i * SIZE, SIZE, DESC_WRITE, 0);
        queue_offer(&queue, i);
        queue_kick(&queue);
        uint32_t written = queue_wait(&queue, i);
        EXPECT(written > 0);
        EXPECT(written <= SIZE);
        unsigned zeros = 0;
        for (unsigned n = 0; n < written; n++)
            zeros += random[i * SIZE + n] == 0;
        EXPECT(zeros < written / 4 + 4);
    }
    EXPECT(memcmp(random, random + SIZE, 16) != 0);
}
