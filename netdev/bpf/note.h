/* Notes of what the groups of a port decided, for whoever wants a log of it.
 *
 *   judge -> first packet of a flow: accepted -+-> asked for? -> not too many? -> `notes` -> the agent's file
 *         -> every refused packet: dropped ----'                    |
 *                                                                  no: counted, and the port's next note says how many
 *
 * How many notes a port may cause is its own clock's business, so that a guest which is flooded fills nobody else's log.
 */
#ifndef PILVI_NOTE_H
#define PILVI_NOTE_H

#include "frame.h"

#define ADMITTED_FIRST 0x100 /* of a judge: allowed, and the first of a flow (or of none) */

#define NOTE_ACCEPTED 1u
#define NOTE_TO_GUEST 2u
#define NOTE_V6 4u

/* `src/note.rs` reads it. */
struct noted {
	__u32 port;    /* its name */
	__u32 skipped; /* notes of this port that were too many before this one */
	__u8 dst[6];
	__u8 src[6];
	struct ip6 saddr; /* IPv4: the first word */
	struct ip6 daddr;
	__u16 sport;
	__u16 dport;
	__u16 length; /* of the IP packet */
	__u8 how;
	__u8 protocol;
	__u8 type;
	__u8 code;
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} notes SEC(".maps");

__attribute__((noinline)) int note(struct __sk_buff *skb, const struct packet *p, __u32 how)
{
	__u64 now = bpf_ktime_get_coarse_ns(), tat;
	__u32 name = whose(skb);
	struct settings *set = get_settings();
	struct live *l = bpf_map_lookup_elem(&live, &name);
	struct noted *n;
	int no;

	if (!p || !set || !l)
		return 0;
	tat = l->note_tat > now ? l->note_tat : now;
	n = tat - now > set->note_burst ? 0 : bpf_ringbuf_reserve(&notes, sizeof(*n), 0);
	if (!n) {
		l->unsaid++;
		return 0;
	}
	l->note_tat = tat + set->note_cost;
	__builtin_memset(n, 0, sizeof(*n));
	n->port = name;
	n->skipped = l->unsaid;
	l->unsaid = 0;
	n->how = how;
	n->sport = p->sport;
	n->dport = p->dport;
	n->length = p->length;
	n->protocol = p->protocol;
	n->type = p->type;
	n->code = p->code;
	no = bpf_skb_load_bytes(skb, 0, n->dst, 12);
	if (how & NOTE_V6)
		no |= bpf_skb_load_bytes(skb, ETH_LEN + 8, &n->saddr, 32);
	else
		no |= bpf_skb_load_bytes(skb, ETH_LEN + 12, &n->saddr, 4) | bpf_skb_load_bytes(skb, ETH_LEN + 16, &n->daddr, 4);
	if (no)
		bpf_ringbuf_discard(n, 0);
	else
		bpf_ringbuf_submit(n, 0);
	return 0;
}

/* What a judge said, noted where the port's flags ask for it: 0, or the reason to drop. */
static __always_inline int noting(struct __sk_buff *skb, const struct packet *p, const struct port *port, __u32 direction, __u32 v6,
				  int said)
{
	__u32 how = v6 | (direction == TO_GUEST ? NOTE_TO_GUEST : 0);

	if (said == ADMITTED_FIRST) {
		if (port->flags & PORT_NOTES_ACCEPTED)
			note(skb, p, how | NOTE_ACCEPTED);
		return 0;
	}
	if (said && port->flags & PORT_NOTES_DROPPED)
		note(skb, p, how);
	return said;
}

#endif
