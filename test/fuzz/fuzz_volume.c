/* volume.json, and the names of objects and images. */
#include "store/volume_files.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    struct volume_description description = {0};
    struct object_id id;
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (volume_description_parse(text, "fuzz", &description) == 0)
        CHECK(strlen(description.id) == 32 && !strchr(description.id, '/'));
    if (object_id_parse(text, &id) == 0) {
        char again[OBJECT_ID_TEXT];
        CHECK(strcmp(object_id_text(&id, again), text) == 0);
    }
    if (ref_check_name(text) == 0)
        CHECK(!strchr(text, '/') && text[0] != '.');
    free(text);
    return 0;
}
