//! Users with their passwords, groups, and who is in which.
use super::{Import, ImportError, dump::Row, extra, options, row_error};
use crate::{
    bootstrap::DEFAULT_DOMAIN,
    password::is_usable,
    tables::{Group, IdMapping, LastActive, Membership, PasswordEntry, User},
};
use pilvi_kit::clock;
use std::collections::{HashMap, HashSet};

/// Passwords of one user that are kept.
const PASSWORDS_MAX: usize = 24;
/// Keystone's numbers of user options.
const OPTIONS: [(&str, &str); 7] = [
    ("1000", "ignore_change_password_upon_first_use"),
    ("1001", "ignore_password_expiry"),
    ("1002", "ignore_lockout_failure_attempts"),
    ("1003", "lock_password"),
    ("1004", "ignore_user_inactivity"),
    ("MFAR", "multi_factor_auth_rules"),
    ("MFAE", "multi_factor_auth_enabled"),
];

/// Microseconds since 1970 from the column with whole numbers, or from the older one with text.
fn time(row: &Row, name: &str) -> Option<i64> {
    row.int(&format!("{name}_int")).or_else(|| clock::parse(&row.text(name)?.replacen(' ', "T", 1)))
}

impl Import<'_> {
    pub(super) async fn people(&mut self) -> Result<(), ImportError> {
        self.users().await?;
        let mut groups = Vec::new();
        for row in self.dump.rows("group") {
            groups.push(Group {
                id: row.need("id").map_err(row_error)?,
                name: row.need("name").map_err(row_error)?,
                domain_id: row.need("domain_id").map_err(row_error)?,
                description: row.text("description").unwrap_or_default().to_owned(),
                extra: extra(row),
                ..Group::default()
            });
        }
        self.put("groups", groups).await?;
        let mut members = Vec::new();
        for row in self.dump.rows("user_group_membership") {
            let (user, group) = (row.need("user_id").map_err(row_error)?, row.need("group_id").map_err(row_error)?);
            members.push(Membership::new(&self.here(&user), &group));
        }
        self.put("memberships", members).await?;
        let mut mappings = Vec::new();
        for row in self.dump.rows("id_mapping") {
            mappings.push(IdMapping {
                id: row.need("public_id").map_err(row_error)?,
                domain_id: row.need("domain_id").map_err(row_error)?,
                local_id: row.need("local_id").map_err(row_error)?,
                entity: row.need("entity_type").map_err(row_error)?,
            });
        }
        self.put("ids of users and groups in directories", mappings).await
    }

    async fn users(&mut self) -> Result<(), ImportError> {
        let mut passwords = passwords(self.dump.rows("password"));
        let options = options(self.dump.rows("user_option"), "user_id", &OPTIONS);
        let names: HashMap<&str, &Row> =
            self.dump.rows("local_user").iter().filter_map(|r| Some((r.text("user_id")?, r))).collect();
        let federated: HashSet<&str> =
            self.dump.rows("federated_user").iter().filter_map(|r| r.text("user_id")).collect();
        let (mut users, mut active, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for row in self.dump.rows("user") {
            let id = row.need("id").map_err(row_error)?;
            let Some(local) = names.get(id.as_str()) else {
                left.push(if federated.contains(id.as_str()) {
                    "made by a login from outside: it is made again by the next one"
                } else {
                    "kept in a directory: it is read from there"
                });
                continue;
            };
            let entries = local.text("id").and_then(|id| passwords.remove(id)).unwrap_or_default();
            let (usable, broken): (Vec<_>, Vec<_>) = entries.into_iter().partition(|p| is_usable(&p.hash));
            left.extend(broken.last().map(|_| "a password whose hash cannot be verified here: it must be set anew"));
            let surplus = usable.len().saturating_sub(PASSWORDS_MAX);
            if let Some(at) = row.text("last_active_at").and_then(|d| clock::parse(&format!("{d}T00:00:00Z"))) {
                active.push(LastActive { id: id.clone(), day: at.div_euclid(86_400_000_000) });
            }
            users.push(User {
                name: local.need("name").map_err(row_error)?,
                domain_id: local.need("domain_id").map_err(row_error)?,
                default_project_id: row.text("default_project_id").map(|p| self.here(p)),
                enabled: row.flag("enabled").unwrap_or(true),
                passwords: usable.into_iter().skip(surplus).collect(),
                options: options.get(&id).cloned().unwrap_or_default(),
                extra: extra(row),
                created_us: time(row, "created_at").unwrap_or_default(),
                id,
                ..User::default()
            });
        }
        left.into_iter().for_each(|why| self.report.leave("users", why));
        let users = self.merged_users(users).await?;
        self.put("users", users).await?;
        self.put("days of last logins", active).await
    }

    /// Without the administrator, where this cloud has its own: that one stands for him, with its password.
    async fn merged_users(&mut self, users: Vec<User>) -> Result<Vec<User>, ImportError> {
        let Some(ours) = self.identity.directory.user_named(DEFAULT_DOMAIN, "admin").await? else { return Ok(users) };
        let is_admin = |u: &User| u.name == "admin" && u.domain_id == DEFAULT_DOMAIN && u.id != ours.id;
        let (admins, users): (Vec<User>, Vec<User>) = users.into_iter().partition(is_admin);
        for admin in admins {
            self.report.leave(
                "users",
                format!("admin ({}): the one of this cloud stands for it, with the password he has here", admin.id),
            );
            self.aliases.insert(admin.id, ours.id.clone());
        }
        Ok(users)
    }
}

/// id of the local user -> his passwords, oldest first
fn passwords(rows: &[Row]) -> HashMap<String, Vec<PasswordEntry>> {
    let mut all: HashMap<String, Vec<(i64, PasswordEntry)>> = HashMap::new();
    for row in rows {
        let (Some(owner), Some(hash)) = (row.text("local_user_id"), row.text("password_hash")) else { continue };
        let entry = PasswordEntry {
            hash: hash.to_owned(),
            created_us: time(row, "created_at").unwrap_or_default(),
            expires_us: time(row, "expires_at"),
            self_service: row.flag("self_service").unwrap_or(false),
        };
        all.entry(owner.to_owned()).or_default().push((row.int("id").unwrap_or_default(), entry));
    }
    let sorted = |mut list: Vec<(i64, PasswordEntry)>| {
        list.sort_by_key(|(number, entry)| (entry.created_us, *number));
        list.into_iter().map(|(_, entry)| entry).collect()
    };
    all.into_iter().map(|(owner, list)| (owner, sorted(list))).collect()
}
