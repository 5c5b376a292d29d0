//! Changes and questions as DNS messages, and what answers mean. Pure.
use crate::{Change, Data, Trouble};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, PTR},
    },
};
use std::net::IpAddr;

fn name(text: &str) -> Result<Name, Trouble> {
    let mut name = Name::from_ascii(text).map_err(|e| Trouble::Impossible(format!("{text}: {e}")))?;
    name.set_fqdn(true);
    Ok(name)
}

fn rdata(data: &Data) -> Result<RData, Trouble> {
    Ok(match data {
        Data::Address(IpAddr::V4(address)) => RData::A(A(*address)),
        Data::Address(IpAddr::V6(address)) => RData::AAAA(AAAA(*address)),
        Data::Pointer(to) => RData::PTR(PTR(name(to)?)),
    })
}

pub fn update(change: &Change) -> Result<Message, Trouble> {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Update;
    message.metadata.recursion_desired = false;
    let mut zone = Query::new();
    zone.set_name(name(&change.zone)?).set_query_class(DNSClass::IN).set_query_type(RecordType::SOA);
    message.add_query(zone);
    let at = name(&change.name)?;
    if change.new {
        let mut unused = Record::update0(at.clone(), 0, RecordType::ANY);
        unused.dns_class = DNSClass::NONE;
        message.add_answer(unused);
    }
    for data in &change.remove {
        let mut gone = Record::from_rdata(at.clone(), 0, rdata(data)?);
        gone.dns_class = DNSClass::NONE;
        message.add_authority(gone);
    }
    for data in &change.add {
        message.add_authority(Record::from_rdata(at.clone(), change.ttl, rdata(data)?));
    }
    Ok(message)
}

/// What the server made of a change.
pub fn outcome(change: &Change, answer: Message) -> Result<(), Trouble> {
    match answer.response_code {
        ResponseCode::NoError => Ok(()),
        ResponseCode::YXDomain => Err(Trouble::Taken(change.name.clone())),
        code => Err(Trouble::Zone { zone: change.zone.clone(), why: code.to_string() }),
    }
}

pub fn questions(at: &str, pointers: bool) -> Result<Vec<Message>, Trouble> {
    let kinds: &[RecordType] = if pointers { &[RecordType::PTR] } else { &[RecordType::A, RecordType::AAAA] };
    let at = name(at)?;
    let question = |kind: &RecordType| {
        let mut message = Message::new(Message::query().id, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(at.clone(), *kind));
        message
    };
    Ok(kinds.iter().map(question).collect())
}

/// The records of an answer that stand at the name itself.
pub fn found(zone: &str, at: &str, answer: Message) -> Result<Vec<Data>, Trouble> {
    match answer.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        code => return Err(Trouble::Zone { zone: zone.to_owned(), why: code.to_string() }),
    }
    let at = name(at)?;
    let data = |record: Record| match record.data {
        RData::A(A(address)) => Some(Data::Address(address.into())),
        RData::AAAA(AAAA(address)) => Some(Data::Address(address.into())),
        RData::PTR(PTR(to)) => Some(Data::Pointer(to.to_ascii().to_ascii_lowercase())),
        _ => None,
    };
    Ok(answer.answers.into_iter().filter(|record| record.name == at).filter_map(data).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> Change {
        Change {
            zone: "example.org.".into(),
            name: "web.example.org.".into(),
            new: true,
            remove: vec![Data::Address("192.0.2.1".parse().unwrap())],
            add: vec![Data::Address("2001:db8::1".parse().unwrap())],
            ttl: 120,
        }
    }

    #[test]
    fn a_change_is_written_as_the_standard_has_it() {
        let bytes = update(&change()).unwrap().to_vec().unwrap();
        assert_eq!(&bytes[2..4], [0x28, 0], "opcode 5, nothing else");
        assert_eq!(&bytes[4..12], [0, 1, 0, 1, 0, 2, 0, 0], "one zone, one condition, two updates");
        let mut parts = bytes[12..].to_vec();
        let zone = b"\x07example\x03org\x00\x00\x06\x00\x01";
        assert_eq!(&parts[..zone.len()], zone, "SOA, IN");
        parts.drain(..zone.len());
        let unused = b"\x03web\xc0\x0c\x00\xff\x00\xfe\x00\x00\x00\x00\x00\x00";
        assert_eq!(&parts[..unused.len()], unused, "ANY, NONE, no data");
        parts.drain(..unused.len());
        let gone = b"\xc0\x1d\x00\x01\x00\xfe\x00\x00\x00\x00\x00\x04\xc0\x00\x02\x01";
        assert_eq!(&parts[..gone.len()], gone, "A, NONE, TTL 0, the data that goes");
        parts.drain(..gone.len());
        assert_eq!(&parts[..12], b"\xc0\x1d\x00\x1c\x00\x01\x00\x00\x00\x78\x00\x10", "AAAA, IN, its TTL");
    }

    #[test]
    fn answers_are_told_apart() {
        let change = change();
        let with = |code| {
            let mut answer = Message::response(1, OpCode::Update);
            answer.metadata.response_code = code;
            outcome(&change, answer)
        };
        assert_eq!(with(ResponseCode::NoError), Ok(()));
        assert_eq!(with(ResponseCode::YXDomain), Err(Trouble::Taken("web.example.org.".into())));
        assert!(matches!(with(ResponseCode::Refused), Err(Trouble::Zone { .. })));
        assert!(update(&Change { name: "a..b".into(), ..change.clone() }).is_err());
        let mut answer = Message::response(1, OpCode::Query);
        let record = |at: &str, last| Record::from_rdata(name(at).unwrap(), 60, RData::A(A([192, 0, 2, last].into())));
        answer.add_answers([record("web.example.org.", 1), record("other.example.org.", 2)]);
        let found = found("example.org.", "Web.example.org.", answer).unwrap();
        assert_eq!(found, [Data::Address("192.0.2.1".parse().unwrap())]);
    }
}
