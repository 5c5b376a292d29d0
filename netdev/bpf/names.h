/* Questions about names, which every host answers itself, at 169.254.169.253 and fe80::a9fe:a9fd, port 53.
 *
 *   UDP -> rate limit -> station of the network's resolver, as any packet        (a packet socket reads it)
 *   TCP -> rate limit of connections -> source := an address that names the port -> the host's own stack
 *
 * The limit is each port's own and stands before the queue that all ports share: a flood costs nobody else a question.
 */
#ifndef PILVI_NAMES_H
#define PILVI_NAMES_H

#include "metadata6.h"

#define NAMES_INTERVAL (SEC_NS / 100) /* a hundred a second on the long run, */
#define NAMES_BURST (2 * SEC_NS)      /* two hundred at once */
#define NAMES_ELSEWHERE (-1)          /* no verdict: the packet goes on */

/* Whether the port has asked as much as it may. */
static __always_inline int asked_enough(struct __sk_buff *skb, const struct packet *p)
{
	__u64 now = bpf_ktime_get_coarse_ns(), tat;
	__u32 name = whose(skb);
	struct live *l = bpf_map_lookup_elem(&live, &name);

	if (p->protocol == TCP && !(p->tcp & 2))
		return 0;
	if (!l)
		return 1;
	tat = l->names_tat > now ? l->names_tat : now;
	if (tat - now > NAMES_BURST)
		return 1;
	l->names_tat = tat + NAMES_INTERVAL;
	return 0;
}

/* A packet to 169.254.169.253 that the port's groups let out: a verdict, or NAMES_ELSEWHERE. */
__attribute__((noinline)) int guest_names(struct __sk_buff *skb, const struct port *port, const struct packet *p)
{
	struct settings *set = get_settings();
	__u32 name = bpf_htonl(METADATA_BASE | (whose(skb) & ~METADATA_MASK));

	if (!port || !p || !set)
		return drop(skb, DROP_METADATA);
	if (asked_enough(skb, p))
		return drop(skb, DROP_RATE);
	if (p->protocol != TCP)
		return NAMES_ELSEWHERE;
	if (p->dport != bpf_htons(53) || p->later || p->saddr != port->ip || whose(skb) & METADATA_MASK)
		return drop(skb, DROP_METADATA);
	if (set_address(skb, p, 12, p->saddr, name) || set_macs(skb, set->agent_mac, set->service_mac))
		return drop(skb, DROP_MALFORMED);
	return bpf_redirect(set->agent_if, BPF_F_INGRESS);
}

/* The same by IPv6. */
__attribute__((noinline)) int guest_names6(struct __sk_buff *skb, const struct port *port, const struct packet6 *q)
{
	if (!port || !q)
		return drop(skb, DROP_METADATA);
	if (asked_enough(skb, &q->p))
		return drop(skb, DROP_RATE);
	return q->p.protocol == TCP ? to_stack6(skb, port, q, 53) : NAMES_ELSEWHERE;
}

#endif
