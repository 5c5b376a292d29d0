//! What one question is answered. Pure: bytes in, bytes out.
use super::book::Names;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{
    DNSClass, Name, RData, Record, RecordType,
    rdata::{A, AAAA, PTR},
};
use std::net::IpAddr;

/// Bytes of a question that are looked at, and of an answer that is given to who says nothing else.
const PLAIN_MAX: u16 = 512;
/// Bytes of an answer at most: what passes through any network without fragments.
pub(crate) const ANSWER_MAX: u16 = 1232;
/// The bit of the third byte that says that something is missing.
const TRUNCATED: u8 = 2;
/// Seconds that a name may be remembered.
const TTL: u32 = 10;
/// Addresses of one name in an answer.
const ADDRESSES_MAX: usize = 100;

/// How a question has come, and so what may go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Datagram,
    Stream,
}

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Silence,
    Answer(Vec<u8>),
    /// Somebody else knows: what to ask, with an id of zero.
    Ask(Vec<u8>),
}

pub(crate) fn judge(names: &Names, question: &[u8], by: Transport) -> Verdict {
    let Some(head) = question.first_chunk::<12>() else { return Verdict::Silence };
    // An answer is not answered: two resolvers would talk for ever.
    if head[2] & 0x80 != 0 || question.len() > usize::from(ANSWER_MAX) {
        return Verdict::Silence;
    }
    let id = u16::from_be_bytes([head[0], head[1]]);
    let counts = [4, 6, 8].map(|at| u16::from_be_bytes([head[at], head[at + 1]]));
    let opcode = OpCode::from_u8(head[2] >> 3 & 15);
    if opcode != OpCode::Query {
        return refuse(&Message::response(id, opcode), ResponseCode::NotImp);
    }
    let asked = Message::from_vec(question).ok().filter(|_| counts == [1, 0, 0]);
    let Some((asked, query)) = asked.as_ref().and_then(|m| Some((m, m.queries.first()?))) else {
        return refuse(&Message::response(id, opcode), ResponseCode::FormErr);
    };
    let reply = reply_to(asked);
    if asked.edns.as_ref().is_some_and(|e| e.version() != 0) {
        return refuse(&reply, ResponseCode::BADVERS);
    }
    let unusual = matches!(query.query_type, RecordType::AXFR | RecordType::IXFR | RecordType::OPT | RecordType::ANY);
    if query.query_class != DNSClass::IN || unusual {
        return refuse(&reply, ResponseCode::Refused);
    }
    let name = query.name.to_lowercase().to_ascii();
    let name = name.trim_end_matches('.');
    match known(names, &query.name, name, query.query_type) {
        Some(Ok(records)) if by == Transport::Stream => finish(reply, records, u16::MAX),
        Some(Ok(records)) => finish(reply, records, limit(asked)),
        Some(Err(code)) => refuse(&authoritative(reply), code),
        None => ask(asked),
    }
}

/// Bytes that whoever asks can take.
fn limit(asked: &Message) -> u16 {
    asked.edns.as_ref().map_or(PLAIN_MAX, |e| e.max_payload().clamp(PLAIN_MAX, ANSWER_MAX))
}

/// Records of what is known here, a refusal where nothing can be, `None` where others are to be asked.
fn known(names: &Names, asked: &Name, name: &str, kind: RecordType) -> Option<Result<Vec<Record>, ResponseCode>> {
    let record = |data: RData| Record::from_rdata(asked.clone(), TTL, data);
    if let Some(addresses) = names.addresses(name) {
        let data = |ip: &IpAddr| match (ip, kind) {
            (IpAddr::V4(ip), RecordType::A) => Some(RData::A(A(*ip))),
            (IpAddr::V6(ip), RecordType::AAAA) => Some(RData::AAAA(AAAA(*ip))),
            _ => None,
        };
        return Some(Ok(addresses.iter().filter_map(data).take(ADDRESSES_MAX).map(record).collect()));
    }
    if let Ok(net) = asked.parse_arpa_name()
        && net.prefix_len() == net.max_prefix_len()
        && let Some(called) = names.called(&net.addr())
    {
        let data = (kind == RecordType::PTR).then(|| Name::from_ascii(format!("{called}.")).ok()).flatten();
        return Some(Ok(data.into_iter().map(|n| record(RData::PTR(PTR(n)))).collect()));
    }
    let below = name.strip_suffix(names.domain.as_str()).filter(|_| !names.domain.is_empty());
    let ours = names.closed && below.is_some_and(|b| b.is_empty() || b.ends_with('.'));
    // A single word is nobody's outside, but the root and the domains below it may be asked about.
    let word = !name.contains('.') && matches!(kind, RecordType::A | RecordType::AAAA);
    let domain = !names.domain.is_empty() && name == names.domain;
    (ours || (word && !domain && !name.is_empty())).then_some(Err(ResponseCode::NXDomain))
}

fn reply_to(asked: &Message) -> Message {
    let mut reply = Message::response(asked.metadata.id, OpCode::Query);
    reply.metadata.recursion_desired = asked.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_queries(asked.queries.clone());
    if asked.edns.is_some() {
        reply.set_edns(own_edns(ANSWER_MAX));
    }
    reply
}

fn own_edns(payload: u16) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    edns
}

fn authoritative(mut reply: Message) -> Message {
    reply.metadata.authoritative = true;
    reply
}

fn refuse(reply: &Message, code: ResponseCode) -> Verdict {
    let mut reply = reply.clone();
    reply.metadata.response_code = code;
    reply.to_vec().map_or(Verdict::Silence, Verdict::Answer)
}

fn finish(reply: Message, records: Vec<Record>, limit: u16) -> Verdict {
    let mut reply = authoritative(reply);
    reply.add_answers(records);
    match reply.to_vec() {
        Ok(bytes) if bytes.len() <= usize::from(limit) => Verdict::Answer(bytes),
        Ok(_) => {
            reply.answers.clear();
            reply.metadata.truncation = true;
            reply.to_vec().map_or(Verdict::Silence, Verdict::Answer)
        }
        Err(_) => Verdict::Silence,
    }
}

/// The question in our own words: what else the guest has put in stays here.
fn ask(asked: &Message) -> Verdict {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = asked.metadata.recursion_desired;
    message.metadata.checking_disabled = asked.metadata.checking_disabled;
    message.add_queries(asked.queries.clone());
    if let Some(theirs) = &asked.edns {
        let mut edns = own_edns(limit(asked));
        edns.set_dnssec_ok(theirs.flags().dnssec_ok);
        message.set_edns(edns);
    }
    message.to_vec().map_or(Verdict::Silence, Verdict::Ask)
}

/// Bytes of an answer that a question of ours asks for.
pub(crate) fn room(question: &[u8]) -> u16 {
    Message::from_vec(question).map_or(PLAIN_MAX, |m| limit(&m))
}

/// The answer if it fits; else its head and question alone, marked as cut.
pub(crate) fn cut(answer: &[u8], room: u16) -> Vec<u8> {
    let question = question_of(answer).map_or(12, |q| 12 + q.len());
    if answer.len() <= usize::from(room) || answer.len() < question {
        return answer.to_vec();
    }
    let mut short = answer[..question].to_vec();
    short[2] |= TRUNCATED;
    short[6..12].fill(0);
    short
}

/// Whether an answer says that it has been cut.
pub(crate) fn is_cut(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & TRUNCATED != 0)
}

/// The question as it stands in a message: what an answer must repeat.
pub(crate) fn question_of(message: &[u8]) -> Option<Vec<u8>> {
    let mut at = 12;
    loop {
        let length = usize::from(*message.get(at)?);
        if length > 63 {
            return None;
        }
        at += 1 + length;
        if length == 0 {
            return Some(message.get(12..at + 4)?.to_ascii_lowercase());
        }
    }
}

/// Says that nobody could be asked, or that nobody answered.
pub(crate) fn failure(question: &[u8], id: u16, code: ResponseCode) -> Option<Vec<u8>> {
    let asked = Message::from_vec(question).ok()?;
    let mut reply = reply_to(&asked);
    reply.metadata.id = id;
    reply.metadata.response_code = code;
    reply.to_vec().ok()
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
