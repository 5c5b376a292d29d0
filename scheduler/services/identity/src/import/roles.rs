//! Roles, what they imply, and who has them where.
use super::{Import, ImportError, ROOT, dump::Row, extra, options, row_error};
use crate::{
    Step,
    tables::{Actor, ApplicationCredential, Assignment, AssignmentKey, Inference, Place, Role, Trust},
};
use pilvi_kit::Fault;
use pilvi_store::{Query, Tx};

/// What Keystone writes where a role is in no domain.
const NO_DOMAIN: &str = "<<null>>";

impl Import<'_> {
    pub(super) async fn roles(&mut self) -> Result<(), ImportError> {
        let options = options(self.dump.rows("role_option"), "role_id", &[("IMMU", "immutable")]);
        let mut roles = Vec::new();
        for row in self.dump.rows("role") {
            let id = row.need("id").map_err(row_error)?;
            roles.push(Role {
                name: row.need("name").map_err(row_error)?,
                domain_id: row.text("domain_id").filter(|d| *d != NO_DOMAIN).map(str::to_owned),
                description: row.text("description").map(str::to_owned),
                options: options.get(&id).cloned().unwrap_or_default(),
                extra: extra(row),
                id,
            });
        }
        for role in roles.iter().filter(|r| r.domain_id.is_none()) {
            if self.take_over(role.clone()).await? {
                self.report.leave("roles of this cloud", format!("{} has the imported id now", role.name));
            }
        }
        self.put("roles", roles).await?;
        let mut rules = Vec::new();
        for row in self.dump.rows("implied_role") {
            let (prior, implied) = (row.need("prior_role_id"), row.need("implied_role_id"));
            rules.push(Inference::new(&prior.map_err(row_error)?, &implied.map_err(row_error)?));
        }
        self.put("implied roles", rules).await
    }

    /// Gives a role that is here under the same name the imported id, with all that hangs on it.
    async fn take_over(&self, role: Role) -> Result<bool, ImportError> {
        let known = self.identity.store.list::<Role>(Role::global_named(&role.name)).await.map_err(Fault::from)?;
        let Some(old) = known.into_iter().find(|k| k.id != role.id).map(|k| k.record.id) else { return Ok(false) };
        self.identity
            .store
            .write(move |tx| -> Step<'_, ()> {
                let (old, role) = (old.clone(), role.clone());
                Box::pin(async move { take_over_in(tx, &old, &role).await })
            })
            .await?;
        Ok(true)
    }

    pub(super) async fn assignments(&mut self) -> Result<(), ImportError> {
        let mut all = Vec::new();
        for row in self.dump.rows("assignment").iter().chain(self.dump.rows("system_assignment")) {
            all.extend(self.assignment(row)?);
        }
        self.put("role assignments", all).await
    }

    fn assignment(&self, row: &Row) -> Result<Option<Assignment>, ImportError> {
        let need = |name: &str| row.need(name).map_err(row_error);
        let (kind, actor, target) = (need("type")?, self.here(&need("actor_id")?), self.here(&need("target_id")?));
        if target == ROOT {
            return Ok(None);
        }
        let actor = if kind.starts_with("Group") { Actor::Group(actor) } else { Actor::User(actor) };
        let target = match kind.trim_start_matches("Group").trim_start_matches("User") {
            "Project" => Place::Project(target),
            "Domain" => Place::Domain(target),
            "System" => Place::System,
            _ => return Err(row_error(format!("an assignment of type {kind}"))),
        };
        let inherited = row.flag("inherited").unwrap_or(false);
        Ok(Some(Assignment::new(AssignmentKey { actor, target, inherited }, &need("role_id")?)))
    }
}

async fn take_over_in(tx: &mut Tx, old: &str, role: &Role) -> Result<(), Fault> {
    let swap = |id: &str| if id == old { role.id.clone() } else { id.to_owned() };
    for assignment in tx.list::<Assignment>(Assignment::of_role(old)).await? {
        tx.delete::<Assignment>(&assignment.id).await?;
        let new = Assignment::new(assignment.record.key, &role.id);
        if tx.get::<Assignment>(&new.id).await?.is_none() {
            tx.insert(&new).await?;
        }
    }
    let mut rules = tx.list::<Inference>(Inference::of_prior(old)).await?;
    rules.extend(tx.list::<Inference>(Inference::of_implied(old)).await?);
    for rule in rules {
        tx.delete::<Inference>(&rule.id).await?;
        let new = Inference::new(&swap(&rule.prior), &swap(&rule.implied));
        if tx.get::<Inference>(&new.id).await?.is_none() {
            tx.insert(&new).await?;
        }
    }
    for mut credential in tx.list::<ApplicationCredential>(Query::all()).await? {
        if credential.roles.iter().any(|r| r == old) {
            credential.record.roles = credential.roles.iter().map(|r| swap(r)).collect();
            tx.update(&credential).await?;
        }
    }
    for mut trust in tx.list::<Trust>(Query::all()).await? {
        if trust.roles.iter().any(|r| r == old) {
            trust.record.roles = trust.roles.iter().map(|r| swap(r)).collect();
            tx.update(&trust).await?;
        }
    }
    tx.delete::<Role>(old).await?;
    if tx.get::<Role>(&role.id).await?.is_none() {
        tx.insert(role).await?;
    }
    Ok(())
}
