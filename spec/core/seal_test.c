/* seal_test.c -- packing and sealing: round trips at every size, refusal of every changed byte and of every
 * cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "fpcache/seal.h"

static fpc_seal_key key = {.id = "k1", .id_size = 2, .secret = "0123456789abcdef0123456789abcde"};
static const fpc_place place = {
    .user = "ann", .user_size = 3, .space = "", .space_size = 0, .key = "user:1", .key_size = 6};

static void fill(char *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) bytes[i] = (char)(i * i / 7);
}

static void packs_every_size(void **state) {
    (void)state;
    fpc_packer *packer = fpc_packer_new();
    assert_non_null(packer);
    for (size_t size = 0; size < 3000; size = size * 3 / 2 + 1) {
        size_t room = fpc_pack_room(size), packed_size = 0;
        char *plain = malloc(size + 1), *packed = malloc(room), *back = malloc(size + 1), format = 0;
        fill(plain, size);
        fpc_error err;
        assert_int_equal(fpc_pack(packer, 3, 'j', plain, size, packed, room, &packed_size, &err), FPC_OK);
        uint64_t told;
        assert_int_equal(fpc_unpacked_size(packed, packed_size, &told, &err), FPC_OK);
        assert_int_equal(told, size);
        assert_int_equal(fpc_unpack(size % 2 ? packer : NULL, packed, packed_size, back, size, &format, &err),
                         FPC_OK);
        assert_int_equal(format, 'j');
        assert_memory_equal(back, plain, size);
        assert_int_equal(
            fpc_unpack(size % 2 ? packer : NULL, packed, packed_size, back, size + 1, &format, &err),
            FPC_INVALID);
        for (size_t cut = 0; cut < packed_size; cut++) {
            if (fpc_unpacked_size(packed, cut, &told, &err) != FPC_OK) continue;
            assert_int_equal(fpc_unpack(size % 2 ? packer : NULL, packed, cut, back, size, &format, NULL),
                             FPC_INVALID);
        }
        free(plain), free(packed), free(back);
    }
    char out[1];
    size_t size;
    fpc_error err;
    assert_int_equal(fpc_pack(packer, 3, 's', "abc", 3, out, sizeof out, &size, &err), FPC_NOMEM);
    assert_int_equal(fpc_pack(packer, 3, 's', "abc", 3, out, 0, &size, &err), FPC_INVALID);
    fpc_packer_delete(packer);
    fpc_packer_delete(NULL);
}

static void seals_every_size(void **state) {
    (void)state;
    for (size_t size = 0; size < 300; size = size * 2 + 1) {
        char plain[300], sealed[300 + FPC_SEAL_EXTRA], back[300 + FPC_SEAL_EXTRA], format = 0;
        size_t sealed_size, back_size;
        fpc_error err;
        fill(plain, size);
        assert_int_equal(fpc_seal(&key, &place, 's', 4711, plain, size, sealed, &sealed_size, &err), FPC_OK);
        assert_true(sealed_size <= size + FPC_SEAL_EXTRA);
        fpc_sealed head;
        assert_int_equal(fpc_sealed_read(sealed, sealed_size, &head, &err), FPC_OK);
        assert_int_equal(head.plain_size, 4711);
        assert_int_equal(head.id_size, 2);
        assert_memory_equal(head.id, "k1", 2);
        assert_int_equal(fpc_unseal(&key, &place, sealed, sealed_size, back, &back_size, &format, &err),
                         FPC_OK);
        assert_int_equal(back_size, size);
        assert_int_equal(format, 's');
        assert_memory_equal(back, plain, size);
        for (size_t at = 0; at < sealed_size; at++) { /* any bit, any cut */
            sealed[at] ^= 4;
            assert_int_equal(fpc_unseal(&key, &place, sealed, sealed_size, back, &back_size, &format, NULL),
                             FPC_INVALID);
            sealed[at] ^= 4;
            assert_int_equal(fpc_unseal(&key, &place, sealed, at, back, &back_size, &format, NULL),
                             FPC_INVALID);
        }
    }
}

static void opens_in_its_place_only(void **state) {
    (void)state;
    char sealed[3 + FPC_SEAL_EXTRA], back[3 + FPC_SEAL_EXTRA], format;
    size_t size, back_size;
    fpc_error err;
    assert_int_equal(fpc_seal(&key, &place, 's', 3, "abc", 3, sealed, &size, &err), FPC_OK);
    fpc_place others[] = {place, place, place, place};
    others[0].key = "user:2";
    others[1].space = "x", others[1].space_size = 1;
    others[2].user = "bob";
    others[3].user = "an", others[3].user_size = 2, others[3].space = "n",
    others[3].space_size = 1; /* moved border */
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_int_equal(fpc_unseal(&key, &others[i], sealed, size, back, &back_size, &format, &err),
                         FPC_INVALID);
    fpc_seal_key other = key;
    other.secret[0] ^= 1;
    assert_int_equal(fpc_unseal(&other, &place, sealed, size, back, &back_size, &format, &err), FPC_INVALID);
    char again[3 + FPC_SEAL_EXTRA];
    assert_int_equal(fpc_seal(&key, &place, 's', 3, "abc", 3, again, &size, &err), FPC_OK);
    assert_memory_not_equal(sealed, again, size);
    assert_int_equal(fpc_seal(&key, &place, 's', 3, "abc", (size_t)1 << 31, again, &size, &err), FPC_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packs_every_size),
        cmocka_unit_test(seals_every_size),
        cmocka_unit_test(opens_in_its_place_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
