/* A plugin for qemu-user that counts the executed instructions by kind: an estimate of speed without the
 * hardware. It prints "all sdot smmla fmla bfdot mull memory" as one line on standard error.
 *
 *     cc -shared -fPIC -O2 -o count.so count.c
 *     qemu-aarch64 -plugin ./count.so program
 *
 * qemu-plugin.h is in no package of Debian; the few declarations used here are those of its API 1.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info_t;
typedef void (*tb_callback)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*exec_callback)(unsigned int, void *);
typedef void (*exit_callback)(qemu_plugin_id_t, void *);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, tb_callback);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, exec_callback, int flags, void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, exit_callback, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { ALL, SDOT, SMMLA, FMLA, BFDOT, MULL, MEMORY, KINDS };

/* Bits of an instruction that name it, from the Arm Architecture Reference Manual. */
static const struct {
    uint32_t mask, bits;
    int kind;
} KNOWN[] = {
    {0xbfe0fc00, 0x0e809400, SDOT},  {0xbfc0f400, 0x0f80e000, SDOT},  /* vector, by element */
    {0xdfe0fc00, 0x4e80a400, SMMLA}, {0xffe0fc00, 0x4e80ac00, SMMLA}, /* with ummla; usmmla */
    {0xbfa0fc00, 0x0e20cc00, FMLA},
    {0xbf80f400, 0x0f801000, FMLA},  {0xbfe0fc00, 0x2e40fc00, BFDOT},
    {0xbfc0f400, 0x0f40f000, BFDOT}, {0xbf20fc00, 0x0e20c000, MULL},  /* smull */
    {0xbf20fc00, 0x0e208000, MULL},                                   /* smlal */
    {0x0a000000, 0x08000000, MEMORY},                                 /* all loads and stores */
};

struct block {
    uint64_t of_kind[KINDS];
};

static uint64_t counts[KINDS];

static void executed(unsigned int cpu, void *data)
{
    (void)cpu;
    const struct block *block = data;
    for (int kind = 0; kind < KINDS; kind++)
        if (block->of_kind[kind])
            __atomic_fetch_add(&counts[kind], block->of_kind[kind], __ATOMIC_RELAXED);
}

/* A block is translated once for the many times that it runs, so its tally is kept until the end. */
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    struct block *block = calloc(1, sizeof *block);
    if (!block)
        abort();
    size_t n = block->of_kind[ALL] = qemu_plugin_tb_n_insns(tb);
    for (size_t i = 0; i < n; i++) {
        uint32_t insn = *(const uint32_t *)qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i));
        for (size_t k = 0; k < sizeof KNOWN / sizeof *KNOWN; k++)
            if ((insn & KNOWN[k].mask) == KNOWN[k].bits) {
                block->of_kind[KNOWN[k].kind]++;
                break;
            }
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, 0, block);
}

static void report(qemu_plugin_id_t id, void *data)
{
    (void)id, (void)data;
    for (int kind = 0; kind < KINDS; kind++)
        fprintf(stderr, "%" PRIu64 "%c", counts[kind], kind + 1 < KINDS ? ' ' : '\n');
}

__attribute__((visibility("default"))) int
qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, report, NULL);
    return 0;
}
