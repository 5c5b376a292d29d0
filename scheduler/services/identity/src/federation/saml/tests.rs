//! Responses that are good, and the ways in which strangers make them look so.
use super::{
    Saml,
    assertion::{Expected, Trusted, Word, accept, relay_state},
    issue::Saying,
    keys::SamlKey,
    signature::{sign, verify},
    xml::{ASSERTION, DSIG, Element, PROTOCOL, SOAP, read},
};
use crate::{Config, token::keys::RepositoryKey};
use pilvi_kit::clock;
use proptest::prelude::*;
use std::sync::LazyLock;

static KEY: LazyLock<SamlKey> = LazyLock::new(|| SamlKey::fresh().unwrap());
static OTHER: LazyLock<SamlKey> = LazyLock::new(|| SamlKey::fresh().unwrap());

const NOW: i64 = 1_795_000_000_000_000;
const MINUTE: i64 = 60_000_000;
const HERE: &str = "https://sp/Shibboleth.sso/SAML2/ECP";

/// An assertion to be.
#[derive(Clone)]
struct Make {
    id: &'static str,
    user: &'static str,
    issuer: &'static str,
    recipient: &'static str,
    audience: Option<&'static str>,
    answers: Option<&'static str>,
    not_before: i64,
    not_after: i64,
    condition: &'static str,
    statement: bool,
}

fn good() -> Make {
    Make {
        id: "_one",
        user: "alice",
        issuer: "https://idp",
        recipient: HERE,
        audience: Some("https://sp"),
        answers: Some("_request"),
        not_before: NOW - MINUTE,
        not_after: NOW + 5 * MINUTE,
        condition: "",
        statement: true,
    }
}

impl Make {
    /// What comes before the place of the signature, and after it.
    fn parts(&self) -> (String, String) {
        let answers = self.answers.map(|id| format!(" InResponseTo=\"{id}\"")).unwrap_or_default();
        let (from, until) = (clock::micros_z(self.not_before), clock::micros_z(self.not_after));
        let audience = self.audience.map(|a| {
            format!(
                "<s:AudienceRestriction><s:Audience>x</s:Audience><s:Audience>{a}</s:Audience></s:AudienceRestriction>"
            )
        });
        let statement = if self.statement { "<s:AuthnStatement/>" } else { "" };
        (
            format!(
                "<s:Assertion xmlns:s=\"{ASSERTION}\" ID=\"{}\" Version=\"2.0\" IssueInstant=\"{}\"><s:Issuer>{}</s:Issuer>",
                self.id,
                clock::seconds_z(NOW),
                self.issuer
            ),
            format!(
                "<s:Subject><s:NameID>{user}</s:NameID><s:SubjectConfirmation Method=\"urn:oasis:names:tc:SAML:2.0:cm:bearer\">\
                 <s:SubjectConfirmationData Recipient=\"{recipient}\" NotOnOrAfter=\"{until}\"{answers}/></s:SubjectConfirmation>\
                 </s:Subject><s:Conditions NotBefore=\"{from}\" NotOnOrAfter=\"{until}\">{audience}{condition}</s:Conditions>{statement}\
                 <s:AttributeStatement><s:Attribute Name=\"mail\" FriendlyName=\"m\"><s:AttributeValue>{user}@x</s:AttributeValue>\
                 </s:Attribute></s:AttributeStatement></s:Assertion>",
                user = self.user,
                recipient = self.recipient,
                audience = audience.unwrap_or_default(),
                condition = self.condition,
            ),
        )
    }
    fn unsigned(&self) -> String {
        let (head, rest) = self.parts();
        head + &rest
    }
    fn signature(&self, key: &SamlKey) -> String {
        sign(&self.unsigned(), self.id, key.pair(), key.certificate()).unwrap()
    }
    fn signed_by(&self, key: &SamlKey) -> String {
        let (head, rest) = self.parts();
        format!("{head}{}{rest}", self.signature(key))
    }
    fn signed(&self) -> String {
        self.signed_by(&KEY)
    }
}

fn response_head(id: &str) -> String {
    format!(
        "<p:Response xmlns:p=\"{PROTOCOL}\" ID=\"{id}\" Version=\"2.0\" Destination=\"{HERE}\" InResponseTo=\"_request\">"
    )
}

const STATUS: &str = "<p:Status><p:StatusCode Value=\"urn:oasis:names:tc:SAML:2.0:status:Success\"/></p:Status>";

fn response(inside: &str) -> String {
    format!("{}{STATUS}{inside}</p:Response>", response_head("_response"))
}

/// A response that is signed as a whole.
fn signed_response(inside: &str) -> String {
    let whole = response(inside);
    let signature = sign(&whole, "_response", KEY.pair(), KEY.certificate()).unwrap();
    format!("{}{signature}{STATUS}{inside}</p:Response>", response_head("_response"))
}

fn envelope(body: &str) -> String {
    format!("<S:Envelope xmlns:S=\"{SOAP}\"><S:Header/><S:Body>{body}</S:Body></S:Envelope>")
}

fn trusted(name: &str) -> Option<Trusted> {
    let keys = vec![KEY.public().unwrap()];
    (name == "https://idp").then(|| Trusted { entity_id: name.into(), keys, unsolicited: false, any_audience: false })
}

fn read_it(text: &str) -> Result<Word, String> {
    let expected = Expected { recipient: HERE, audience: "https://sp", request: Some("_request"), now_us: NOW };
    accept(text, trusted, &expected)
}

fn take(inside: &str) -> Result<Word, String> {
    read_it(&envelope(&response(inside)))
}

fn why(inside: &str) -> String {
    take(inside).unwrap_err()
}

#[test]
fn a_good_response_is_taken_whichever_part_is_signed() {
    let word = take(&good().signed()).unwrap();
    assert_eq!((word.id.as_str(), word.name.as_deref(), word.answers), ("_one", Some("alice"), true));
    assert_eq!(word.attributes["mail"], ["alice@x"]);
    assert_eq!(word.attributes["m"], ["alice@x"]);
    assert_eq!(word.until_us, NOW + 6 * MINUTE);
    assert_eq!(read_it(&envelope(&signed_response(&good().unsigned()))).unwrap(), word);
}

#[test]
fn signatures_are_one_by_a_trusted_key_with_sha2() {
    assert!(why(&good().unsigned()).contains("0 signatures"));
    assert!(why(&good().signed_by(&OTHER)).contains("no key"));
    let both = signed_response(&good().signed());
    assert!(read_it(&envelope(&both)).unwrap_err().contains("2 signatures"));
    let signed = good().signed();
    for (from, to, because) in [
        ("2001/04/xmldsig-more#rsa-sha256", "2000/09/xmldsig#rsa-sha1", "method"),
        ("2001/04/xmldsig-more#rsa-sha256", "2000/09/xmldsig#hmac-sha1", "method"),
        ("2001/04/xmldsig-more#rsa-sha256", "2001/04/xmldsig-more#rsa-sha512", "no key"),
        ("2001/04/xmldsig-more#rsa-sha256", "2001/04/xmldsig-more#ecdsa-sha256", "no key"),
        ("2001/04/xmlenc#sha256", "2000/09/xmldsig#sha1", "digest"),
        ("alice", "mallory", "not what was signed"),
        ("xmldsig#enveloped-signature", "xmldsig#base64", "another form"),
        ("</ds:Transforms>", "<ds:Transform Algorithm=\"x\"/></ds:Transforms>", "too many"),
        ("<ds:SignatureValue>", "<ds:SignatureValue>AAAA", ""),
        ("URI=\"#_one\"", "URI=\"\"", "something else"),
        ("URI=\"#_one\"", "URI=\"#_response\"", "something else"),
        ("</ds:KeyInfo>", "</ds:KeyInfo><ds:Object/>", "too many"),
    ] {
        assert!(signed.contains(from), "{from}");
        let because_of = why(&signed.replace(from, to));
        assert!(because_of.contains(because), "{to}: {because_of}");
    }
    // A second reference would let the first be of anything.
    let reference = &signed[signed.find("<ds:Reference").unwrap()..signed.find("</ds:SignedInfo>").unwrap()];
    assert!(why(&signed.replace(reference, &format!("{reference}{reference}"))).contains("too many"));
}

#[test]
fn spaces_and_prefixes_of_the_envelope_change_nothing() {
    let xml = format!("<?xml version=\"1.0\"?>\n{}", envelope(&response(&good().signed())));
    let moved = xml.replace("<S:Envelope ", "<S:Envelope xmlns:q=\"urn:other\" xmlns=\"urn:default\" ");
    assert_eq!(read_it(&moved), read_it(&xml));
    assert!(read_it(&xml).is_ok());
}

/// What is wrong, how it is made so, and a word of the refusal.
type Case = (&'static str, fn(&mut Make), &'static str);

#[test]
fn it_is_for_us_now_and_from_him() {
    let cases: [Case; 14] = [
        ("over", |m| m.not_after = NOW - 2 * MINUTE, "no more"),
        ("not yet", |m| m.not_before = NOW + 2 * MINUTE, "not good yet"),
        ("for ever", |m| m.not_after = NOW + 2 * 24 * 60 * MINUTE, "more than a day"),
        ("audience", |m| m.audience = Some("https://other"), "for others"),
        ("no audience", |m| m.audience = None, "for whom"),
        ("recipient", |m| m.recipient = "https://sp.evil/Shibboleth.sso/SAML2/ECP", "another address"),
        ("other request", |m| m.answers = Some("_other"), "another request"),
        ("unasked", |m| m.answers = None, "nobody asked"),
        ("other issuer", |m| m.issuer = "https://other", "trusted"),
        ("no issuer", |m| m.issuer = "", "trusted"),
        ("no statement", |m| m.statement = false, "proven"),
        ("condition", |m| m.condition = "<s:Unknown/>", "not known"),
        (
            "two audiences",
            |m| m.condition = "<s:AudienceRestriction><s:Audience>y</s:Audience></s:AudienceRestriction>",
            "for others",
        ),
        ("comment in the name", |m| m.user = "admin<!-- -->.evil", "comment"),
    ];
    for (name, change, because) in cases {
        let mut make = good();
        change(&mut make);
        let text = if make.user.contains('!') { make.unsigned() } else { make.signed() };
        let because_of = why(&text);
        assert!(because_of.contains(because), "{name}: {because_of}");
    }
    let signed = good().signed();
    let whole = envelope(&response(&signed));
    for (from, to) in [
        ("status:Success", "status:Responder"),
        ("Destination=\"https://sp/", "Destination=\"https://other/"),
        ("InResponseTo=\"_request\"><p:Status>", "InResponseTo=\"_x\"><p:Status>"),
        ("Version=\"2.0\" Destination", "Version=\"1.1\" Destination"),
        ("<p:Status>", "<s:Issuer xmlns:s=\"urn:oasis:names:tc:SAML:2.0:assertion\">https://x</s:Issuer><p:Status>"),
        ("<S:Body>", "<S:Body><x/>"),
        ("</S:Body>", "</S:Body><S:Body/>"),
        ("<p:Status>", "<s:EncryptedAssertion xmlns:s=\"urn:oasis:names:tc:SAML:2.0:assertion\"/><p:Status>"),
    ] {
        assert!(whole.contains(from), "{from}");
        assert!(read_it(&whole.replace(from, to)).is_err(), "{to}");
    }
    // Clocks differ a little.
    let mut make = good();
    (make.not_before, make.not_after) = (NOW + MINUTE / 2, NOW - MINUTE / 2);
    assert!(take(&make.signed()).is_ok());
}

/// The eight classic ways to wrap what was signed, for an evil assertion beside a good signature.
fn wrapped() -> Vec<(&'static str, String)> {
    let (evil, original) = (Make { id: "_evil", user: "mallory", ..good() }, good());
    let (evil_head, evil_rest) = evil.parts();
    let (signature, signed, bare) = (original.signature(&KEY), original.signed(), original.unsigned());
    let same_id = Make { user: "mallory", ..good() };
    let whole = response(&bare);
    let of_whole = sign(&whole, "_response", KEY.pair(), KEY.certificate()).unwrap();
    let evil_response =
        |inside: &str| format!("{}{inside}{STATUS}{}</p:Response>", response_head("_evil"), evil.unsigned());
    let object = |of: &str, inside: &str| {
        of.replace("</ds:Signature>", &format!("<ds:Object xmlns:ds=\"{DSIG}\">{inside}</ds:Object></ds:Signature>"))
    };
    vec![
        ("1: the response in the signature of another", evil_response(&object(&of_whole, &whole))),
        ("2: the response before another, with its signature", evil_response(&format!("{whole}{of_whole}"))),
        ("3: an assertion before", response(&format!("{}{signed}", evil.unsigned()))),
        ("3b: an assertion behind", response(&format!("{signed}{}", evil.unsigned()))),
        ("4: the assertion in another", response(&format!("{evil_head}{signed}{evil_rest}"))),
        ("5: its signature in another", response(&format!("{evil_head}{signature}{evil_rest}{bare}"))),
        (
            "6: the assertion in its signature in another",
            response(&format!("{evil_head}{}{evil_rest}", object(&signature, &bare))),
        ),
        ("7: another in extensions", response(&format!("<p:Extensions>{}</p:Extensions>{signed}", evil.unsigned()))),
        (
            "7b: the signed one in extensions",
            response(&format!("<p:Extensions>{signed}</p:Extensions>{}", evil.unsigned())),
        ),
        (
            "8: another in the signature's object",
            response(&signed.replace(&signature, &object(&signature, &evil.unsigned()))),
        ),
        ("9: two of one id", response(&format!("{}{signed}", same_id.unsigned()))),
        ("10: the signature in one of the same id", {
            let (head, rest) = same_id.parts();
            response(&format!("{head}{signature}{rest}{bare}"))
        }),
    ]
}

#[test]
fn wrapping_what_was_signed_gives_nobody_another_name() {
    for (name, xml) in wrapped() {
        let xml = envelope(&xml);
        assert!(read_it(&xml).is_err(), "{name}");
        // Without the count of assertions too: what the signature vouches for is never the evil one.
        let doc = read(&xml).unwrap();
        if let Ok(signed) = verify(Element::root(&doc).unwrap(), &[KEY.public().unwrap()]) {
            let text = signed.text;
            assert!(text.contains("alice") && text.starts_with("<s:Assertion") && !text.contains("mallory"), "{name}");
        }
    }
}

#[test]
fn what_a_cloud_says_another_reads() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::cheap(dir.path());
    config.federation.saml.url = "https://idp-cloud/".into();
    let saml = Saml::open(&config).unwrap();
    let saying = Saying {
        user: "al<i>&\"ce".into(),
        user_domain: "Default".into(),
        roles: vec!["member".into(), "reader".into()],
        project: "p\u{e4}".into(),
        project_domain: "d".into(),
        groups: vec!["JSON:{\"name\":\"g\",\"domain\":{\"name\":\"Default\"}}".into()],
    };
    let xml = envelope(&saml.response(HERE, &saying, NOW).unwrap());
    let name = "https://idp-cloud/identity/v3/OS-FEDERATION/saml2/idp";
    let expected = Expected { recipient: HERE, audience: "https://sp", request: None, now_us: NOW };
    let word = accept(&xml, |who| saml.trusted(who), &expected).unwrap();
    assert_eq!((word.issuer.as_str(), word.name.as_deref()), (name, Some("al<i>&\"ce")));
    assert_eq!(word.attributes["openstack_roles"], ["member", "reader"]);
    assert_eq!(word.attributes["openstack_project"], ["p\u{e4}"]);
    assert_eq!(word.attributes["openstack_groups"], saying.groups);
    assert_eq!(word.attributes.len(), 6);
    // The keys are kept, and nobody else may read them.
    let again = Saml::open(&config).unwrap();
    assert_eq!(again.keys.ring()[0].certificate(), saml.keys.ring()[0].certificate());
    assert!(format!("{:?}", saml.keys.ring()).contains("SamlKey(..)"));
}

#[test]
fn a_peer_cannot_have_our_own_name_or_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::cheap(dir.path());
    config.federation.saml.url = "https://c".into();
    std::fs::create_dir(dir.path().join("saml-keys")).unwrap();
    std::fs::write(dir.path().join("saml-keys/1"), KEY.to_text()).unwrap();
    for (name, certificates) in [
        ("https://c/identity/v3/OS-FEDERATION/saml2/idp", vec![KEY.certificate().to_vec()]),
        ("https://other", vec![]),
        ("https://other", vec![b"nothing".to_vec()]),
    ] {
        config.federation.saml.trusted =
            vec![crate::SamlTrust { entity_id: name.into(), certificates, unsolicited: false, any_audience: false }];
        assert!(Saml::open(&config).is_err(), "{name}");
    }
}

#[test]
fn a_key_and_its_certificate_belong_together() {
    let text = KEY.to_text();
    assert!(SamlKey::of_text(&text).is_ok());
    let (private, _) = text.split_once("-----BEGIN CERTIFICATE").unwrap();
    let other = OTHER.to_text();
    let (_, certificate) = other.split_once("-----BEGIN CERTIFICATE").unwrap();
    assert!(SamlKey::of_text(&format!("{private}-----BEGIN CERTIFICATE{certificate}")).is_err());
    assert!(SamlKey::of_text(private).is_err());
}

/// Pieces of which responses are made.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,20}",
        Just("<S:Envelope xmlns:S=\"http://schemas.xmlsoap.org/soap/envelope/\">".to_owned()),
        Just("<S:Body>".to_owned()),
        Just("</S:Body></S:Envelope>".to_owned()),
        Just(response("")),
        Just(good().signed()),
        Just(good().unsigned()),
        Just(good().signature(&KEY)),
        Just("<!--".to_owned()),
        Just("<![CDATA[".to_owned()),
        Just("&#0;&#xFFFF;&lt;".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_xml_makes_it_panic(pieces in proptest::collection::vec(piece(), 0..8)) {
        let text = pieces.concat();
        let _ = (read_it(&text), relay_state(&text), super::certificates_of_metadata(&text, "a"));
        let _ = take(&text);
    }

    #[test]
    fn a_changed_response_says_the_same_or_nothing(at in 0usize..6000, with in "[ -~]") {
        let mut bytes = envelope(&response(&good().signed())).into_bytes();
        let at = at % bytes.len();
        bytes[at] = with.as_bytes()[0];
        if let Ok(word) = read_it(&String::from_utf8(bytes).unwrap()) {
            prop_assert_eq!(word, take(&good().signed()).unwrap());
        }
    }
}
