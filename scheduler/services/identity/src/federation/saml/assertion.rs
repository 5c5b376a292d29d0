//! What a provider says of somebody: reading a response and deciding whether it was said to us, now, and by whom we
//! trust. Pure.
//!
//! ```text
//! text -> the response in it -> who claims to say it (to choose keys) -> its one signature -> what was signed,
//!         read anew from its canonical bytes -> issuer, recipient, times, audience, the request it answers -> Word
//! ```
//! Nothing of the document but the signed bytes ends up in a [`Word`].
use super::{
    signature::{PublicKey, verify},
    xml::{ASSERTION, ECP, Element, PROTOCOL, SOAP, read},
};
use pilvi_kit::clock;
use std::collections::BTreeMap;

/// Clocks of others may differ by this.
pub const SKEW_US: i64 = 60 * 1_000_000;
/// Longest time for which an assertion may be good: so long its id is remembered.
const LASTS_MAX_US: i64 = 24 * 3600 * 1_000_000;
const ATTRIBUTES_MAX: usize = 512;
const VALUES_MAX: usize = 2048;
const SUCCESS: &str = "urn:oasis:names:tc:SAML:2.0:status:Success";
const BEARER: &str = "urn:oasis:names:tc:SAML:2.0:cm:bearer";

/// Somebody whose word counts, and how it has to be given.
#[derive(Debug, Clone)]
pub struct Trusted {
    pub entity_id: String,
    pub keys: Vec<PublicKey>,
    pub unsolicited: bool,
    pub any_audience: bool,
}

/// What an assertion is held against.
#[derive(Debug)]
pub struct Expected<'a> {
    /// The address it came to.
    pub recipient: &'a str,
    /// What we call ourselves.
    pub audience: &'a str,
    /// The request that it may answer.
    pub request: Option<&'a str>,
    pub now_us: i64,
}

/// What was said, found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The assertion's.
    pub id: String,
    pub issuer: String,
    pub name: Option<String>,
    pub attributes: BTreeMap<String, Vec<String>>,
    /// Until then nobody may come with it again.
    pub until_us: i64,
    /// It answers the request that was expected.
    pub answers: bool,
}

/// The response in the body of a SOAP envelope.
fn response<'d, 'x>(root: Element<'d, 'x>) -> Result<Element<'d, 'x>, String> {
    let body = root.called(SOAP, "Envelope")?.one(SOAP, "Body")?;
    match body.children().as_slice() {
        [one] => one.called(PROTOCOL, "Response"),
        _ => Err("the envelope's body has not one element".into()),
    }
}

/// What the client brought back beside the response: it says which request of ours this answers.
pub fn relay_state(text: &str) -> Result<Option<String>, String> {
    let doc = read(text)?;
    let Some(header) = Element::root(&doc)?.called(SOAP, "Envelope")?.maybe(SOAP, "Header")? else { return Ok(None) };
    header.maybe(ECP, "RelayState")?.map(|state| state.word()).transpose()
}

/// Reads a response. `trusted` gives whoever calls himself so.
pub fn accept(text: &str, trusted: impl Fn(&str) -> Option<Trusted>, expected: &Expected<'_>) -> Result<Word, String> {
    let doc = read(text)?;
    let root = Element::root(&doc)?;
    let response = response(root)?;
    let everything = root.everything();
    if everything.iter().any(|e| e.is(ASSERTION, "EncryptedAssertion")) {
        return Err("the assertion is encrypted, and we gave nobody a key for that".into());
    }
    if response.one(PROTOCOL, "Status")?.one(PROTOCOL, "StatusCode")?.need("Value")? != SUCCESS {
        return Err("the provider did not say that it knows him".into());
    }
    if everything.iter().filter(|e| e.is(ASSERTION, "Assertion")).count() != 1 {
        return Err("it has not one assertion".into());
    }
    let assertion = response.one(ASSERTION, "Assertion")?;
    let claimed = assertion.one(ASSERTION, "Issuer")?.word()?;
    let trusted = trusted(&claimed).ok_or_else(|| format!("nobody who calls himself {claimed} is trusted"))?;
    let signed = verify(root, &trusted.keys)?;
    if signed.element.id != response.id && signed.element.id != assertion.id {
        return Err("something else than the response or its assertion is signed".into());
    }
    around(response, &trusted, expected)?;
    // From here on only what was signed is looked at.
    let doc = read(&signed.text)?;
    let root = Element::root(&doc)?;
    let assertion = if root.is(PROTOCOL, "Response") {
        around(root, &trusted, expected)?;
        root.one(ASSERTION, "Assertion")?
    } else {
        root.called(ASSERTION, "Assertion")?
    };
    word(assertion, &trusted, expected)
}

/// What stands around the assertion must not contradict it; unsigned it proves nothing.
fn around(response: Element<'_, '_>, trusted: &Trusted, expected: &Expected<'_>) -> Result<(), String> {
    if response.need("Version")? != "2.0" {
        return Err("it is of another version of SAML".into());
    }
    if response.attribute("Destination").is_some_and(|to| to != expected.recipient) {
        return Err("the response was meant for another address".into());
    }
    if response.attribute("InResponseTo").is_some_and(|id| Some(id) != expected.request) {
        return Err("the response answers another request".into());
    }
    match response.maybe(ASSERTION, "Issuer")? {
        Some(issuer) if issuer.word()? != trusted.entity_id => Err("the response is another's".into()),
        _ => Ok(()),
    }
}

fn time(of: Element<'_, '_>, name: &str) -> Result<Option<i64>, String> {
    let parsed = |text| clock::parse(text).ok_or_else(|| format!("{name} is no time"));
    of.attribute(name).map(parsed).transpose()
}

/// Is it good now? Gives the end.
fn times(of: Element<'_, '_>, now: i64) -> Result<Option<i64>, String> {
    if time(of, "NotBefore")?.is_some_and(|from| from > now.saturating_add(SKEW_US)) {
        return Err("it is not good yet".into());
    }
    let until = time(of, "NotOnOrAfter")?;
    if until.is_some_and(|until| until.saturating_add(SKEW_US) <= now) {
        return Err("it is good no more".into());
    }
    Ok(until)
}

fn word(assertion: Element<'_, '_>, trusted: &Trusted, expected: &Expected<'_>) -> Result<Word, String> {
    let now = expected.now_us;
    let issuer = assertion.one(ASSERTION, "Issuer")?.word()?;
    if assertion.need("Version")? != "2.0" || issuer != trusted.entity_id {
        return Err("the assertion is another's, or of another version".into());
    }
    let issued = time(assertion, "IssueInstant")?.ok_or("it does not say when it was issued")?;
    if issued > now.saturating_add(SKEW_US) {
        return Err("it was issued in the future".into());
    }
    let subject = assertion.one(ASSERTION, "Subject")?;
    let (until, answers) = confirmed(subject, expected)?;
    if !answers && !trusted.unsolicited {
        return Err("nobody asked for it, and its issuer is not one who speaks unasked".into());
    }
    conditions(assertion, trusted, expected)?;
    let statements = assertion.all(ASSERTION, "AuthnStatement");
    if statements.is_empty() {
        return Err("it does not say that he has proven who he is".into());
    }
    for statement in statements {
        if time(statement, "SessionNotOnOrAfter")?.is_some_and(|end| end.saturating_add(SKEW_US) <= now) {
            return Err("his session there is over".into());
        }
    }
    let name = subject.maybe(ASSERTION, "NameID")?.map(|name| name.word()).transpose()?;
    Ok(Word {
        id: assertion.need("ID")?.to_owned(),
        issuer,
        name,
        attributes: attributes(assertion)?,
        until_us: until.saturating_add(SKEW_US),
        answers,
    })
}

/// Some confirmation must make whoever brings the assertion to this address its subject. Gives how long it does, and
/// whether it answers our request.
fn confirmed(subject: Element<'_, '_>, expected: &Expected<'_>) -> Result<(i64, bool), String> {
    let mut why = "it is nobody's who brings it".to_owned();
    for confirmation in subject.all(ASSERTION, "SubjectConfirmation") {
        if confirmation.attribute("Method") != Some(BEARER) {
            continue;
        }
        match bearer(confirmation.one(ASSERTION, "SubjectConfirmationData")?, expected) {
            Ok(found) => return Ok(found),
            Err(not) => why = not,
        }
    }
    Err(why)
}

fn bearer(data: Element<'_, '_>, expected: &Expected<'_>) -> Result<(i64, bool), String> {
    if data.need("Recipient")? != expected.recipient {
        return Err("it was made for another address".into());
    }
    let until = times(data, expected.now_us)?.ok_or("it is good for ever")?;
    if until > expected.now_us.saturating_add(LASTS_MAX_US) {
        return Err("it is good for more than a day".into());
    }
    match (data.attribute("InResponseTo"), expected.request) {
        (None, _) => Ok((until, false)),
        (Some(id), Some(request)) if id == request => Ok((until, true)),
        (Some(_), _) => Err("it answers another request".into()),
    }
}

fn conditions(assertion: Element<'_, '_>, trusted: &Trusted, expected: &Expected<'_>) -> Result<(), String> {
    let mut audience = trusted.any_audience;
    if let Some(conditions) = assertion.maybe(ASSERTION, "Conditions")? {
        times(conditions, expected.now_us)?;
        for condition in conditions.children() {
            if condition.is(ASSERTION, "AudienceRestriction") {
                let all = condition.all(ASSERTION, "Audience").into_iter().map(|a| a.word());
                if !all.collect::<Result<Vec<_>, _>>()?.iter().any(|a| a == expected.audience) {
                    return Err("it was made for others".into());
                }
                audience = true;
            } else if !condition.is(ASSERTION, "OneTimeUse") && !condition.is(ASSERTION, "ProxyRestriction") {
                return Err("it has a condition that is not known".into());
            }
        }
    }
    if audience { Ok(()) } else { Err("it does not say for whom it was made".into()) }
}

/// Under their names, and under the friendly ones where nothing is called so.
fn attributes(assertion: Element<'_, '_>) -> Result<BTreeMap<String, Vec<String>>, String> {
    let (mut out, mut friendly) = (BTreeMap::<String, Vec<String>>::new(), BTreeMap::<String, Vec<String>>::new());
    let (mut count, mut values) = (0, 0);
    for statement in assertion.all(ASSERTION, "AttributeStatement") {
        for attribute in statement.all(ASSERTION, "Attribute") {
            let all = attribute.all(ASSERTION, "AttributeValue");
            // A value with elements in it (a name id, an address) is none that a mapping could compare.
            let texts: Vec<String> = all.iter().filter_map(|value| value.word().ok()).collect();
            (count, values) = (count + 1, values + texts.len());
            if count > ATTRIBUTES_MAX || values > VALUES_MAX {
                return Err("it says too much".into());
            }
            if let Some(name) = attribute.attribute("FriendlyName") {
                friendly.entry(name.to_owned()).or_default().extend(texts.iter().cloned());
            }
            out.entry(attribute.need("Name")?.to_owned()).or_default().extend(texts);
        }
    }
    for (name, texts) in friendly {
        out.entry(name).or_insert(texts);
    }
    Ok(out)
}
