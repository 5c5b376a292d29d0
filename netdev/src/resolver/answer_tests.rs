//! Questions as clients ask them, and as an attacker does.
use super::super::book::tests::names as book_of;
use super::*;
use hickory_proto::op::Query;
use proptest::prelude::*;

fn names() -> Names {
    book_of(
        "cloud.example.",
        false,
        &[
            ("web", "10.0.0.11"),
            ("web", "fd00::11"),
            ("host-10-0-0-12", "10.0.0.12"),
            ("db.prod.example.org.", "10.0.0.13"),
        ],
    )
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn verdict(message: &Message) -> Verdict {
    judge(&names(), &message.to_vec().unwrap(), Transport::Datagram)
}

fn answer(name: &str, kind: RecordType) -> Message {
    match verdict(&question(name, kind)) {
        Verdict::Answer(bytes) => Message::from_vec(&bytes).unwrap(),
        other => panic!("{name} {kind}: {other:?}"),
    }
}

fn data(name: &str, kind: RecordType) -> Vec<String> {
    answer(name, kind).answers.iter().map(|r| r.data.to_string()).collect()
}

#[test]
fn ports_are_known_by_their_names() {
    for name in ["web", "WEB.", "web.cloud.example", "Web.Cloud.Example."] {
        assert_eq!(data(name, RecordType::A), ["10.0.0.11"], "{name}");
        assert_eq!(data(name, RecordType::AAAA), ["fd00::11"], "{name}");
    }
    assert_eq!(data("db.prod.example.org.", RecordType::A), ["10.0.0.13"]);
    assert_eq!(data("11.0.0.10.in-addr.arpa.", RecordType::PTR), ["web.cloud.example."]);
    assert_eq!(data("13.0.0.10.in-addr.arpa.", RecordType::PTR), ["db.prod.example.org."]);
    let reply = answer("web.cloud.example.", RecordType::A);
    assert!(reply.metadata.authoritative && reply.metadata.recursion_available);
    assert_eq!((reply.metadata.id, reply.metadata.response_code), (77, ResponseCode::NoError));
    assert!(reply.edns.is_none(), "who does not speak EDNS is not answered in it");
}

#[test]
fn a_name_without_such_a_record_is_there_all_the_same() {
    let reply = answer("host-10-0-0-12.cloud.example.", RecordType::AAAA);
    assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(answer("web", RecordType::MX).answers.len(), 0);
}

#[test]
fn a_network_has_a_domain_of_its_own_beside_the_clouds() {
    let book = book_of("inside.", true, &[("web", "10.0.0.11")]);
    let asked = |name: &str| judge(&book, &question(name, RecordType::A).to_vec().unwrap(), Transport::Datagram);
    for name in ["web", "web.inside.", "web.own.example."] {
        let Verdict::Answer(bytes) = asked(name) else { panic!("{name}") };
        assert_eq!(Message::from_vec(&bytes).unwrap().answers.len(), 1, "{name}");
    }
    assert!(matches!(asked("nobody.own.example."), Verdict::Ask(_)), "others may know");
}

#[test]
fn what_nobody_outside_can_know_is_not_asked_outside() {
    assert_eq!(answer("nobody", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
    let closed = book_of("inside.", true, &[("web", "10.0.0.11")]);
    for name in ["nobody.inside.", "a.b.inside.", "inside."] {
        let Verdict::Answer(bytes) =
            judge(&closed, &question(name, RecordType::MX).to_vec().unwrap(), Transport::Datagram)
        else {
            panic!("{name}")
        };
        assert_eq!(Message::from_vec(&bytes).unwrap().metadata.response_code, ResponseCode::NXDomain, "{name}");
    }
    let near = judge(&closed, &question("nobody.notinside.", RecordType::A).to_vec().unwrap(), Transport::Datagram);
    assert!(matches!(near, Verdict::Ask(_)), "another domain that ends alike");
    for (name, kind) in
        [("example.org.", RecordType::A), ("nobody.cloud.example.", RecordType::A), ("org.", RecordType::NS)]
    {
        assert!(matches!(verdict(&question(name, kind)), Verdict::Ask(_)), "{name}");
    }
}

#[test]
fn others_are_asked_in_our_own_words() {
    let mut asked = question("example.org.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(true);
    asked.set_edns(edns);
    let Verdict::Ask(bytes) = verdict(&asked) else { panic!("asked") };
    let sent = Message::from_vec(&bytes).unwrap();
    let edns = sent.edns.as_ref().unwrap();
    assert_eq!((sent.metadata.id, edns.max_payload(), edns.flags().dnssec_ok), (0, 1232, true));
    assert_eq!(question_of(&bytes), question_of(&asked.to_vec().unwrap()));
}

#[test]
fn what_does_not_fit_says_so() {
    let many: Vec<String> = (1..=24).map(|n| format!("10.0.0.{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|a| ("a-name-of-many-servers.of-one-company", a.as_str())).collect();
    let names = book_of("cloud.example.", false, &many);
    let mut asked = question("a-name-of-many-servers.of-one-company.cloud.example.", RecordType::A);
    let Verdict::Answer(cut) = judge(&names, &asked.to_vec().unwrap(), Transport::Datagram) else { panic!("answered") };
    let whole = Message::from_vec(&cut).unwrap();
    assert!(cut.len() <= 512 && (whole.metadata.truncation || whole.answers.len() == 24));
    asked.set_edns(own_edns(4096));
    let Verdict::Answer(whole) = judge(&names, &asked.to_vec().unwrap(), Transport::Datagram) else {
        panic!("answered")
    };
    assert_eq!(Message::from_vec(&whole).unwrap().answers.len(), 24);
}

#[test]
fn strange_questions_are_refused() {
    let code = |bytes: &[u8]| match judge(&names(), bytes, Transport::Datagram) {
        Verdict::Answer(bytes) => Some(Message::from_vec(&bytes).unwrap().metadata.response_code),
        _ => None,
    };
    assert_eq!(code(&question("web", RecordType::AXFR).to_vec().unwrap()), Some(ResponseCode::Refused));
    assert_eq!(code(&question("web", RecordType::ANY).to_vec().unwrap()), Some(ResponseCode::Refused));
    let mut two = question("web", RecordType::A);
    two.add_query(Query::query(Name::from_ascii("x").unwrap(), RecordType::A));
    assert_eq!(code(&two.to_vec().unwrap()), Some(ResponseCode::FormErr));
    let mut update = question("web", RecordType::A).to_vec().unwrap();
    update[2] = 5 << 3;
    assert_eq!(code(&update), Some(ResponseCode::NotImp));
    let mut reply = question("web", RecordType::A).to_vec().unwrap();
    reply[2] |= 0x80;
    assert_eq!(judge(&names(), &reply, Transport::Datagram), Verdict::Silence, "an answer is not answered");
    assert_eq!(judge(&names(), &[0; 11], Transport::Datagram), Verdict::Silence);
    // A name that points at itself.
    let mut knot = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1];
    assert_eq!(code(&knot), Some(ResponseCode::FormErr));
    knot.truncate(13);
    assert_eq!(code(&knot), Some(ResponseCode::FormErr));
}

proptest! {
    #[test]
    fn no_bytes_make_it_fall_over(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), plain in any::<bool>()) {
        if plain && bytes.len() > 12 {
            bytes[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        }
        if let Verdict::Answer(answer) = judge(&names(), &bytes, Transport::Datagram) {
            prop_assert!(answer.len() <= usize::from(ANSWER_MAX) + 12);
        }
        let _ = question_of(&bytes);
        let _ = failure(&bytes, 1, ResponseCode::ServFail);
    }
}
