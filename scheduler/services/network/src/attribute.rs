//! Resources as tables of attributes: what a client may send, what is filled in, who may see it.
//!
//! Neutron's API is one shape many times over, so it is data here: a [`Resource`] is a name and a table
//! of [`Attr`]s, and this file turns a request body into a checked map (or a 400 that names the member).
//! Rules of single attributes (`create_network:shared`) are derived from the same table.
//!
//! ```text
//! body --envelope--> member --names known?--> checks --> defaults --> map for the resource's ops
//! ```
use crate::check::Check;
use crate::fault;
use pilvi_kit::{Call, Fault};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

/// What a missing attribute becomes on create.
#[derive(Debug, Clone, Copy)]
pub enum Absent {
    /// 400
    Required,
    /// Stays out of the map: the operation decides.
    Unset,
    Null,
    Bool(bool),
    Zero,
    Text(&'static str),
    EmptyList,
    EmptyObject,
}

/// One attribute of a resource.
#[derive(Debug, Clone, Copy)]
pub struct Attr {
    pub name: &'static str,
    pub post: bool,
    pub put: bool,
    pub check: Check,
    pub absent: Absent,
    /// Sending it asks `create_<resource>:<name>` / `update_<resource>:<name>`.
    pub ruled: bool,
    /// Seeing it asks `get_<resource>:<name>`.
    pub restricted: bool,
    /// Never shown.
    pub hidden: bool,
}

/// An attribute that only the service sets.
pub const fn shown(name: &'static str) -> Attr {
    Attr {
        name,
        post: false,
        put: false,
        check: crate::check::any,
        absent: Absent::Unset,
        ruled: false,
        restricted: false,
        hidden: false,
    }
}

/// An attribute that clients set on create and update.
pub const fn open(name: &'static str, check: Check) -> Attr {
    Attr { name, post: true, put: true, check, absent: Absent::Unset, ruled: false, restricted: false, hidden: false }
}

/// An attribute that clients set on create only.
pub const fn once(name: &'static str, check: Check) -> Attr {
    Attr { put: false, ..open(name, check) }
}

/// An attribute that clients set on update only.
pub const fn later(name: &'static str, check: Check) -> Attr {
    Attr { post: false, ..open(name, check) }
}

impl Attr {
    pub const fn absent(mut self, absent: Absent) -> Self {
        self.absent = absent;
        self
    }
    pub const fn required(self) -> Self {
        self.absent(Absent::Required)
    }
    pub const fn ruled(mut self) -> Self {
        self.ruled = true;
        self
    }
    pub const fn restricted(mut self) -> Self {
        self.restricted = true;
        self
    }
    pub const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }
}

/// Attributes that every resource has.
pub const STANDARD: &[Attr] = &[
    shown("id"),
    once("project_id", crate::check::text::<255>),
    once("tenant_id", crate::check::text::<255>),
    open("name", crate::check::name).absent(Absent::Text("")),
    open("description", crate::check::text_or_null::<255>).absent(Absent::Text("")),
    shown("created_at"),
    shown("updated_at"),
    shown("revision_number"),
    once("tags", crate::check::tags).absent(Absent::EmptyList),
];

/// One kind of thing in the API.
#[derive(Debug, Clone, Copy)]
pub struct Resource {
    /// `security_group`
    pub name: &'static str,
    /// `security_groups`
    pub collection: &'static str,
    /// `SecurityGroupNotFound`
    pub missing: &'static str,
    /// `Security group`
    pub label: &'static str,
    pub attrs: &'static [Attr],
    /// Standard attributes that this resource lacks.
    pub lacks: &'static [&'static str],
    /// What it lives below, as its rules are named (`get_floatingip_port_forwarding`); "" for most.
    pub below: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Create,
    Update,
}

impl Resource {
    /// All attributes; a resource's own entry wins over the standard one.
    pub fn all(&self) -> impl Iterator<Item = &'static Attr> + '_ {
        let own = self.attrs;
        own.iter().chain(
            STANDARD.iter().filter(move |s| !self.lacks.contains(&s.name) && !own.iter().any(|o| o.name == s.name)),
        )
    }
    pub fn attr(&self, name: &str) -> Option<&'static Attr> {
        self.all().find(|a| a.name == name)
    }
    /// Do projects own it, or is it the cloud's?
    pub fn is_owned(&self) -> bool {
        self.attr("project_id").is_some()
    }
    /// The name of its rules after the verb.
    pub fn rule(&self) -> String {
        if self.below.is_empty() { self.name.to_owned() } else { format!("{}_{}", self.below, self.name) }
    }
    pub fn not_found(&self, id: &str) -> Fault {
        fault::missing(self.missing, self.label, id)
    }

    /// The one member of a body, or all members of a bulk create.
    pub fn members<'b>(&self, body: &'b Value) -> Result<(Vec<&'b Value>, bool), Fault> {
        if let Some(member) = body.get(self.name) {
            return Ok((vec![member], false));
        }
        match body.get(self.collection).and_then(Value::as_array) {
            Some(items) if items.is_empty() => Err(Fault::bad_request("Resources required")),
            Some(items) if items.len() > BULK_MAX => {
                Err(Fault::bad_request(format!("At most {BULK_MAX} {} can be created by one request", self.collection)))
            }
            // Each may be wrapped once more, as in a single create.
            Some(items) => Ok((items.iter().map(|i| i.get(self.name).unwrap_or(i)).collect(), true)),
            None => Err(Fault::bad_request(format!("Unable to find '{}' in request body", self.name))),
        }
    }

    /// Checks one member and fills in what is missing.
    pub fn parse(&self, member: &Value, verb: Verb, caller_project: &str) -> Result<Map<String, Value>, Fault> {
        let given = member
            .as_object()
            .ok_or_else(|| Fault::bad_request(format!("'{}' is not a dictionary", crate::check::plain(member))))?;
        let mut out = Map::new();
        let unknown: Vec<&str> = given.keys().map(String::as_str).filter(|k| self.attr(k).is_none()).take(8).collect();
        if !unknown.is_empty() {
            return Err(Fault::bad_request(format!("Unrecognized attribute(s) '{}'", unknown.join(", "))));
        }
        for attr in self.all() {
            match (given.get(attr.name), verb) {
                (Some(_), Verb::Create) if !attr.post => {
                    return Err(Fault::bad_request(format!("Attribute '{}' not allowed in POST", attr.name)));
                }
                (Some(_), Verb::Update) if !attr.put => {
                    return Err(Fault::bad_request(format!("Cannot update read-only attribute {}", attr.name)));
                }
                (Some(value), _) => {
                    let value = (attr.check)(value).map_err(|reason| {
                        Fault::bad_request(format!("Invalid input for {}. Reason: {reason}.", attr.name))
                    })?;
                    out.insert(attr.name.to_owned(), value);
                }
                (None, Verb::Create) if attr.post => fill(&mut out, attr)?,
                (None, _) => {}
            }
        }
        if verb == Verb::Create && self.is_owned() {
            owner(&mut out, caller_project)?;
        }
        Ok(out)
    }

    /// Asks the rules of the attributes that the client sent: 403 for the first refused.
    pub fn authorize_attributes(
        &self,
        call: &Call,
        sent: &Value,
        target: &pilvi_kit::Target,
        verb: Verb,
    ) -> Result<(), Fault> {
        let word = if verb == Verb::Create { "create" } else { "update" };
        let Some(sent) = sent.as_object() else { return Ok(()) };
        for attr in self.all().filter(|a| a.ruled && sent.contains_key(a.name)) {
            // Sending the default is not a wish.
            if verb == Verb::Create && same_as_default(attr, &sent[attr.name]) {
                continue;
            }
            let rule = format!("{word}_{}:{}", self.name, attr.name);
            if !call.may(&rule, target) {
                return Err(fault::refused(&rule));
            }
        }
        Ok(())
    }

    /// The schema of a create or update, for the kit and the OpenAPI document. Values are checked by the
    /// table, because Neutron takes more spellings of a value than a schema can say.
    pub fn schema(&self, verb: Verb) -> Value {
        let mut properties = Map::new();
        for attr in self.all().filter(|a| if verb == Verb::Create { a.post } else { a.put }) {
            properties.insert(attr.name.to_owned(), json!({}));
        }
        let required: Vec<&str> = self
            .all()
            .filter(|a| matches!(a.absent, Absent::Required) && verb == Verb::Create)
            .map(|a| a.name)
            .collect();
        let mut one = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            one["x-required"] = json!(required);
        }
        match verb {
            Verb::Update => json!({"type": "object", "required": [self.name], "properties": {self.name: one}}),
            Verb::Create => {
                // Where both are called alike, it is one that is sent.
                let mut bodies = json!({ self.collection: {"type": "array", "items": {"type": "object"}} });
                bodies[self.name] = one;
                json!({"type": "object", "properties": bodies})
            }
        }
    }
}

/// Members of one bulk create.
pub const BULK_MAX: usize = 256;

fn same_as_default(attr: &Attr, sent: &Value) -> bool {
    match attr.absent {
        Absent::Null => sent.is_null(),
        Absent::Bool(b) => (attr.check)(sent) == Ok(json!(b)),
        Absent::Zero => (attr.check)(sent) == Ok(json!(0)),
        Absent::Text(t) => sent.as_str() == Some(t),
        Absent::EmptyList => sent.as_array().is_some_and(Vec::is_empty),
        Absent::EmptyObject => sent.as_object().is_some_and(Map::is_empty),
        Absent::Required | Absent::Unset => false,
    }
}

fn fill(out: &mut Map<String, Value>, attr: &Attr) -> Result<(), Fault> {
    let value = match attr.absent {
        Absent::Required => {
            return Err(Fault::bad_request(format!(
                "Failed to parse request. Required attribute '{}' not specified",
                attr.name
            )));
        }
        Absent::Unset => return Ok(()),
        Absent::Null => Value::Null,
        Absent::Bool(b) => json!(b),
        Absent::Zero => json!(0),
        Absent::Text(t) => json!(t),
        Absent::EmptyList => json!([]),
        Absent::EmptyObject => json!({}),
    };
    out.insert(attr.name.to_owned(), value);
    Ok(())
}

/// `tenant_id` and `project_id` are one thing; the caller's project when neither is sent.
fn owner(out: &mut Map<String, Value>, caller_project: &str) -> Result<(), Fault> {
    let tenant = out.remove("tenant_id");
    let project = out.remove("project_id");
    let owner = match (tenant, project) {
        (Some(t), Some(p)) if t != p => {
            return Err(Fault::bad_request("'project_id' and 'tenant_id' do not match"));
        }
        (Some(owner), _) | (None, Some(owner)) => owner,
        (None, None) => json!(caller_project),
    };
    out.insert("project_id".to_owned(), owner);
    Ok(())
}

/// The record with some attributes replaced: records name their fields as the API does.
pub fn overlay<R: Serialize + DeserializeOwned>(record: &R, changes: &Map<String, Value>) -> Result<R, Fault> {
    let mut document = serde_json::to_value(record).map_err(Fault::internal)?;
    for (name, value) in changes {
        document[name.as_str()] = value.clone();
    }
    serde_json::from_value(document).map_err(Fault::internal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;

    const THING: Resource = Resource {
        name: "thing",
        collection: "things",
        missing: "ThingNotFound",
        label: "Thing",
        attrs: &[
            once("cidr", check::cidr).required(),
            open("shared", check::boolean).absent(Absent::Bool(false)).ruled(),
            shown("status"),
        ],
        lacks: &["tags"],
        below: "",
    };

    fn message(member: Value, verb: Verb) -> String {
        THING.parse(&member, verb, "p").unwrap_err().message
    }

    #[test]
    fn bodies_are_filled_or_refused_by_name() {
        let map = THING.parse(&json!({"cidr": "10.0.0.0/8"}), Verb::Create, "p").unwrap();
        assert_eq!(map["shared"], json!(false));
        assert_eq!(map["project_id"], json!("p"));
        assert!(message(json!({}), Verb::Create).contains("Required attribute 'cidr'"));
        assert!(message(json!({"cidr": "10.0.0.0/8", "x": 1}), Verb::Create).contains("Unrecognized attribute(s) 'x'"));
        assert!(
            message(json!({"cidr": "10.0.0.0/8", "status": "UP"}), Verb::Create)
                .contains("'status' not allowed in POST")
        );
        assert!(message(json!({"cidr": "10.0.0.0/8"}), Verb::Update).contains("read-only attribute cidr"));
        assert!(message(json!({"cidr": "nonsense"}), Verb::Create).contains("Invalid input for cidr"));
        assert!(
            message(json!({"cidr": "10.0.0.0/8", "tenant_id": "a", "project_id": "b"}), Verb::Create)
                .contains("do not match")
        );
        assert!(message(json!([]), Verb::Create).contains("not a dictionary"));
        assert!(THING.members(&json!({"things": []})).is_err());
        assert!(THING.members(&json!({"thing": {}})).is_ok());
    }
}
