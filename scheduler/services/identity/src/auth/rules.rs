//! Multi-factor rules: which proofs a user must give together before he gets a token.
//!
//! `options.multi_factor_auth_rules` is a list of lists of methods; all methods of any one list suffice. A
//! method nobody can use is left out of its list, and a user none of whose lists can be met logs in as
//! without rules: a mistake in a rule must not lock him out.
use super::{methods::Proof, receipt};
use crate::{Identity, tables::User, token::Method};
use pilvi_kit::Fault;
use serde_json::Value;
use std::collections::BTreeSet;

/// The lists that count, as methods.
fn rules(user: &User) -> Vec<BTreeSet<&'static str>> {
    if user.options.get("multi_factor_auth_enabled").and_then(Value::as_bool) == Some(false) {
        return Vec::new();
    }
    let lists = user.options.get("multi_factor_auth_rules").and_then(Value::as_array);
    let known = |list: &Value| -> BTreeSet<&'static str> {
        let names = list.as_array().into_iter().flatten().filter_map(Value::as_str);
        names.filter_map(Method::parse).filter(|m| *m != Method::Ec2).map(Method::name).collect()
    };
    lists.into_iter().flatten().map(known).filter(|list| !list.is_empty()).collect()
}

fn met(rules: &[BTreeSet<&'static str>], given: &[Method]) -> bool {
    let given: BTreeSet<&str> = given.iter().map(|m| m.name()).collect();
    rules.is_empty() || rules.iter().any(|rule| rule.iter().all(|method| given.contains(method)))
}

impl Identity {
    /// Adds what a receipt proves to what was proven now; 401 with a new receipt unless the rules are met.
    pub(super) async fn check_rules(&self, proof: &mut Proof, shown: Option<&str>) -> Result<(), Fault> {
        if let Some(text) = shown {
            for method in self.read_receipt(text, &proof.user_id)? {
                if !proof.methods.contains(&method) {
                    proof.methods.push(method);
                }
            }
        }
        let Some(user) = self.directory.user(&proof.user_id).await? else { return Ok(()) };
        let rules = rules(&user);
        if met(&rules, &proof.methods) {
            return Ok(());
        }
        let domain = self.directory.domain(&user.domain_id).await?;
        Err(receipt::demand(self.make_receipt(&user, &proof.methods)?, &user, domain.as_deref(), &rules))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn user(options: Value) -> User {
        User { options: options.as_object().unwrap().clone(), ..User::default() }
    }

    #[test]
    fn one_whole_list_must_be_given() {
        let both = json!([["password", "totp"], ["token"]]);
        let cases = [
            (json!({}), vec![Method::Password], true),
            (json!({"multi_factor_auth_rules": both}), vec![Method::Password], false),
            (json!({"multi_factor_auth_rules": both}), vec![Method::Totp, Method::Password], true),
            (json!({"multi_factor_auth_rules": both}), vec![Method::Token], true),
            (
                json!({"multi_factor_auth_rules": both, "multi_factor_auth_enabled": false}),
                vec![Method::Password],
                true,
            ),
            (json!({"multi_factor_auth_rules": [["password", "retina"]]}), vec![Method::Password], true),
            (json!({"multi_factor_auth_rules": [["retina"]]}), vec![Method::Password], true),
            (json!({"multi_factor_auth_rules": [["retina"], ["totp"]]}), vec![Method::Password], false),
            (json!({"multi_factor_auth_rules": "broken"}), vec![Method::Password], true),
        ];
        for (options, given, enough) in cases {
            assert_eq!(met(&rules(&user(options.clone())), &given), enough, "{options} {given:?}");
        }
    }
}
