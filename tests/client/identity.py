"""Every command that the client offers for identity (Keystone v3)."""
import json
import os
import tempfile

from tour import no_row, row, same

GROUPS = ["openstack.identity.v3"]
FOLDER = tempfile.mkdtemp(prefix="pilvi-tour-")


def file(name, value):
    """A file for the commands that take one."""
    path = os.path.join(FOLDER, name)
    with open(path, "w") as out:
        out.write(value if isinstance(value, str) else json.dumps(value))
    return path


def domains(admin):
    made = admin("domain create --description 'a tour' tour", name="tour", enabled=True, description="a tour")
    admin("domain show tour", id=made["id"], options={})
    row(admin("domain list"), ID=made["id"], Name="tour", Enabled=True, Description="a tour")
    admin("domain set --name tour-two --description other --disable tour")
    admin("domain show", made["id"], name="tour-two", description="other", enabled=False)
    row(admin("domain list --name tour-two"), ID=made["id"])
    no_row(admin("domain list --enabled"), ID=made["id"])
    admin("domain create --or-show tour-two", id=made["id"])
    admin.refused("domain create tour-two", "409")
    admin("domain set --enable tour-two")
    admin.refused("domain delete tour-two", "disable")
    admin("domain set --disable tour-two")
    admin("domain delete tour-two")
    admin.refused("domain show tour-two", "tour-two")
    admin("domain create --immutable fixed", options={"immutable": True})
    admin.refused("domain set --name loose fixed", "403")
    admin("domain set --no-immutable --disable fixed")
    admin("domain delete fixed")


def projects(admin):
    top = admin("project create --tag red --property colour=blue --description d tour", name="tour", description="d",
                domain_id="default", parent_id="default", enabled=True, is_domain=False, tags=["red"], colour="blue")
    below = admin("project create --parent tour --disable tour-below", parent_id=top["id"], enabled=False)
    row(admin("project list --long"), ID=top["id"], Name="tour", Domain_ID="default", Description="d", Enabled=True)
    row(admin("project list --parent tour"), Name="tour-below")
    no_row(admin("project list --parent tour"), Name="tour")
    row(admin("project list --tags red"), ID=top["id"])
    no_row(admin("project list --not-tags red"), ID=top["id"])
    row(admin("project list --disabled"), ID=below["id"])
    names = [r["Name"] for r in admin("project list --sort name:desc")]
    same(names, sorted(names, reverse=True))
    admin("project set --name tour-two --tag green --property shape=round tour")
    admin("project set --remove-tag red tour-two")
    admin("project show tour-two", id=top["id"], tags=["green"], colour="blue", shape="round")
    admin("project set --clear-tags --description e tour-two")
    admin("project show tour-two", tags=[], description="e")
    chain = admin("project show --parents --children", top["id"])
    same(list(chain["subtree"]), [below["id"]])
    row(admin("project list --my-projects"), Name="admin")
    admin.refused("project create tour-two", "409")
    admin.refused("project delete tour-two", "403")
    admin("project delete tour-below tour-two")
    admin.refused("project show tour-two", "tour-two")


def users_and_groups(admin):
    made = admin("user create --project admin --password first-secret --email t@example.org --description d "
                 "--ignore-password-expiry tour", name="tour", email="t@example.org", description="d", enabled=True,
                 domain_id="default")
    same(made["options"], {"ignore_password_expiry": True})
    same(made["default_project_id"], admin("project show admin")["id"])
    row(admin("user list --long"), ID=made["id"], Name="tour", Email="t@example.org", Enabled=True)
    group = admin("group create --description d tourists", name="tourists", description="d", domain_id="default")
    admin("group add user tourists tour")
    same(admin("group contains user tourists tour").strip(), "tour in group tourists")
    row(admin("user list --group tourists"), ID=made["id"])
    row(admin("group list --user tour"), ID=group["id"], Name="tourists")
    admin("group remove user tourists tour")
    same(admin.run(["group", "contains", "user", "tourists", "tour"])[2].strip(), "tour not in group tourists")
    admin("group set --name travellers --description e tourists")
    admin("group show travellers", id=group["id"], description="e")
    row(admin("group list --long"), ID=group["id"], Name="travellers", Description="e")
    admin("group create --or-show travellers", id=group["id"])
    admin("group delete travellers")
    admin.refused("group show travellers", "travellers")

    admin("user set --name tour-two --email u@example.org --disable tour")
    admin("user show", made["id"], name="tour-two", email="u@example.org", enabled=False)
    no_row(admin("user list --enabled"), ID=made["id"])
    admin("user set --enable --name tour tour-two")
    admin("role add --user tour --project admin member")
    tour = admin.but(OS_USERNAME="tour", OS_PASSWORD="first-secret")
    tour("user password set --original-password first-secret --password second-secret")
    tour.refused("token issue", "401")
    tour = tour.but(OS_PASSWORD="second-secret")
    tour("token issue", user_id=made["id"])
    admin("user create --or-show tour", id=made["id"])
    admin("user delete tour")
    tour.refused("token issue", "401")


def roles(admin):
    made = admin("role create --description d guide", name="guide", description="d", domain_id=None)
    row(admin("role list"), ID=made["id"], Name="guide")
    admin("role set --name leader --description e guide")
    admin("role show leader", id=made["id"], description="e")
    implied = admin("implied role create --implied-role reader leader")
    same(implied["prior_role"], made["id"])
    row(admin("implied role list"), Prior_Role_Name="leader", Implied_Role_Name="reader")
    admin("project create pilgrim")
    admin("user create --password secret-of-pilgrim pilgrim")
    admin("group create pilgrims")
    admin("role add --user pilgrim --project pilgrim leader")
    admin("role add --group pilgrims --domain default --inherited leader")
    admin("role add --user pilgrim --system all reader")
    rows = admin("role assignment list --names --user pilgrim")
    row(rows, Role="leader", User="pilgrim@Default", Project="pilgrim@Default", Inherited=False)
    row(rows, Role="reader", User="pilgrim@Default", System="all")
    row(admin("role assignment list --names --group pilgrims"), Role="leader", Domain="Default", Inherited=True)
    row(admin("role assignment list --names --effective --user pilgrim --project pilgrim"), Role="reader")
    row(admin("role assignment list --names --auth-user --project admin --effective"), Role="admin")
    admin("role remove --user pilgrim --project pilgrim leader")
    admin("role remove --group pilgrims --domain default --inherited leader")
    admin("role remove --user pilgrim --system all reader")
    same(admin("role assignment list --user pilgrim"), [])
    admin("implied role delete --implied-role reader leader")
    no_row(admin("implied role list"), Prior_Role_Name="leader")
    admin("group delete pilgrims")
    admin("user delete pilgrim")
    admin("project delete pilgrim")
    admin.refused("role create leader", "409")
    own = admin("role create --domain default --immutable own", domain_id="default")
    row(admin("role list --domain default"), ID=own["id"])
    admin.refused("role delete --domain default own", "403")
    admin("role set --domain default --no-immutable own")
    admin("role delete --domain default own")
    admin("role delete leader")
    admin.refused("role show leader", "leader")


def catalogue(admin):
    admin("region create --description far north", region="north", description="far", parent_region=None)
    admin("region create --parent-region north pole", parent_region="north")
    row(admin("region list"), Region="pole", Parent_Region="north", Description="")
    row(admin("region list --parent-region north"), Region="pole")
    admin("region set --description nearer north")
    admin("region show north", description="nearer")

    service = admin("service create --name travel --description d tour", type="tour", name="travel", enabled=True,
                    description="d")
    row(admin("service list --long"), ID=service["id"], Name="travel", Type="tour", Enabled=True, Description="d")
    admin("service set --name voyage --description e --disable travel")
    admin("service show voyage", id=service["id"], enabled=False, description="e")
    admin("service set --enable voyage")

    end = admin("endpoint create --region north tour public https://tour.example.org/%(project_id)s", region="north",
                interface="public", enabled=True, url="https://tour.example.org/%(project_id)s",
                service_id=service["id"], service_name="voyage", service_type="tour")
    row(admin("endpoint list --service tour --interface public --region north"), ID=end["id"], Region="north",
        Service_Name="voyage", Service_Type="tour", Enabled=True, Interface="public")
    admin("endpoint set --url https://tour.example.org/v2 --interface internal", end["id"])
    admin("endpoint show", end["id"], url="https://tour.example.org/v2", interface="internal", region="north")
    own = row(admin("catalog list"), Name="voyage", Type="tour")
    same([(e["interface"], e["url"]) for e in own["Endpoints"]], [("internal", "https://tour.example.org/v2")])
    admin("catalog show tour", name="voyage", type="tour", id=service["id"])
    admin("catalog show identity", type="identity")
    endpoint_filters(admin, end)
    admin("endpoint delete", end["id"])
    admin.refused("endpoint show", end["id"], end["id"])
    admin("service delete voyage")
    admin.refused("service show voyage", "voyage")
    admin("region delete pole north")
    admin.refused("region show north", "north")


def endpoint_filters(admin, end):
    admin("project create party")
    admin("endpoint add project", end["id"], "party")
    row(admin("endpoint list --project party"), ID=end["id"])
    row(admin("endpoint list --endpoint", end["id"]), Name="party")
    admin("endpoint remove project", end["id"], "party")
    same(admin("endpoint list --project party"), [])
    filters = file("filters.json", {"interface": "internal"})
    group = admin("endpoint group create --description d tours", filters, name="tours", description="d")
    same(group["filters"], {"interface": "internal"})
    row(admin("endpoint group list"), ID=group["id"], Name="tours", Description="d")
    admin("endpoint group set --name voyages --description e --filters", file("more.json", {"region_id": "north"}), "tours")
    admin("endpoint group show voyages", id=group["id"], description="e", filters={"region_id": "north"})
    admin("endpoint group add project voyages party")
    row(admin("endpoint group list --project party"), ID=group["id"])
    admin("endpoint group remove project voyages party")
    no_row(admin("endpoint group list --project party"), ID=group["id"])
    admin("endpoint group delete voyages")
    admin.refused("endpoint group show voyages", "voyages")
    admin("project delete party")


def credentials(admin):
    me = admin("token issue")["user_id"]
    made = admin("credential create --type tour --project admin admin", '{"k": "v"}', type="tour", blob='{"k": "v"}',
                 user_id=me)
    row(admin("credential list --user admin --type tour"), ID=made["id"], Type="tour", Data='{"k": "v"}')
    admin("credential set --user admin --type tour --data other", made["id"])
    admin("credential show", made["id"], blob="other")
    admin("credential delete", made["id"])
    admin.refused("credential show", "No Credential found", made["id"])

    key = admin("ec2 credentials create", user_id=me)
    shown = admin("ec2 credentials show", key["access"])
    same((shown["secret"], shown["project_id"]), (key["secret"], key["project_id"]))
    row(admin("ec2 credentials list"), Access=key["access"], Secret=key["secret"])
    admin("ec2 credentials delete", key["access"])
    no_row(admin("ec2 credentials list"), Access=key["access"])


def application_credentials(admin):
    rules = file("rules.json", [{"service": "identity", "method": "GET", "path": "/v3/users"}])
    made = admin("application credential create --secret its-secret --role admin --description d --expiration "
                 "2040-01-01T00:00:00 --access-rules", rules, "robot", Name="robot", Description="d",
                 Unrestricted=False, Secret="its-secret")
    row(admin("application credential list"), ID=made["ID"], Name="robot", Description="d")
    shown = admin("application credential show robot", ID=made["ID"])
    same([r["name"] for r in shown["Roles"]], ["admin"])
    same(shown["Expires At"][:19], "2040-01-01T00:00:00")
    url = {n: v for n, v in admin.environment.items() if n in ("OS_AUTH_URL", "OS_CACERT", "OS_IDENTITY_API_VERSION")}
    robot = type(admin)(**url, OS_AUTH_TYPE="v3applicationcredential", OS_APPLICATION_CREDENTIAL_ID=made["ID"],
                        OS_APPLICATION_CREDENTIAL_SECRET="its-secret")
    row(robot("user list"), Name="admin")
    robot.refused("project list", "40")
    rule = row(admin("access rule list"), Service="identity", Method="GET", Path="/v3/users")
    shown = admin("access rule show", rule["ID"])
    same((shown["Service"], shown["Method"], shown["Path"]), ("identity", "GET", "/v3/users"))
    admin.refused("access rule delete", "403", rule["ID"])
    admin("application credential delete robot")
    robot.refused("token issue", "40")
    admin("access rule delete", rule["ID"])
    no_row(admin("access rule list"), ID=rule["ID"])


def trusts(admin):
    trustee = admin("user create --password secret-of-tour heir")
    made = admin("trust create --project admin --role member --impersonate --expiration 2040-01-01T00:00:00 admin heir",
                 is_impersonation=True, trustee_user_id=trustee["id"])
    row(admin("trust list"), ID=made["id"], Trustee_User_ID=trustee["id"], Impersonation=True)
    row(admin("trust list --trustee heir"), ID=made["id"])
    row(admin("trust list --trustor admin"), ID=made["id"])
    row(admin("trust list --auth-user"), ID=made["id"])
    shown = admin("trust show", made["id"])
    if "member" not in str(shown["roles"]):
        raise AssertionError(shown)
    by_trust = admin.but(OS_USERNAME="heir", OS_PASSWORD="secret-of-tour", OS_TRUST_ID=made["id"],
                         OS_PROJECT_NAME=None, OS_PROJECT_DOMAIN_NAME=None)
    same(by_trust("token issue")["user_id"], made["trustor_user_id"])
    admin("trust delete", made["id"])
    by_trust.refused("token issue", "40")
    admin("user delete heir")


def tokens(admin):
    token = admin("token issue")
    by_token = type(admin)(OS_AUTH_URL=admin.environment["OS_AUTH_URL"], OS_CACERT=admin.environment["OS_CACERT"],
                           OS_IDENTITY_API_VERSION="3", OS_AUTH_TYPE="v3token", OS_TOKEN=token["id"],
                           OS_PROJECT_NAME="admin", OS_PROJECT_DOMAIN_ID="default")
    by_token("token issue", user_id=token["user_id"], project_id=token["project_id"])
    admin("token revoke", token["id"])
    by_token.refused("token issue", "40")


def limits(admin):
    admin("service create --name travel tour")
    registered = admin("registered limit create --service travel --default-limit 10 --region RegionOne --description d "
                       "seats", resource_name="seats", default_limit=10, region_id="RegionOne", description="d")
    row(admin("registered limit list --resource-name seats"), ID=registered["id"], Resource_Name="seats",
        Default_Limit=10, Region_ID="RegionOne")
    admin("registered limit set --default-limit 20 --description e", registered["id"], default_limit=20)
    admin("registered limit show", registered["id"], default_limit=20, description="e")
    own = admin("limit create --project admin --service travel --resource-limit 5 --region RegionOne seats",
                resource_name="seats", resource_limit=5, region_id="RegionOne")
    row(admin("limit list --service travel --resource-name seats --region RegionOne"), ID=own["id"], Resource_Limit=5)
    admin("limit set --resource-limit 7 --description mine", own["id"], resource_limit=7, description="mine")
    admin("limit show", own["id"], resource_limit=7)
    admin.refused("registered limit delete", "403", registered["id"])
    admin("limit delete", own["id"])
    admin.refused("limit show", "No Limit found", own["id"])
    admin("registered limit delete", registered["id"])
    admin.refused("registered limit show", "No RegisteredLimit found", registered["id"])
    admin("service delete travel")


def policies(admin):
    made = admin("policy create --type text/plain", file("policy", "allow all"), type="text/plain", rules="allow all")
    row(admin("policy list --long"), ID=made["id"], Type="text/plain", Rules="allow all")
    admin("policy set --type text/x --rules", file("policy-two", "deny all"), made["id"])
    admin("policy show", made["id"], type="text/x", rules="deny all")
    admin("policy delete", made["id"])
    admin.refused("policy show", "No Policy found", made["id"])


def oauth1(admin):
    consumer = admin("consumer create --description d", description="d")
    row(admin("consumer list"), ID=consumer["id"], Description="d")
    admin("consumer set --description e", consumer["id"])
    admin("consumer show", consumer["id"], description="e")
    pair = ["--consumer-key", consumer["id"], "--consumer-secret", consumer["secret"]]
    request = admin("request token create --project admin", *pair)
    verifier = admin("request token authorize --role member --request-key", request["id"])["oauth_verifier"]
    access = admin("access token create", *pair, "--request-key", request["id"], "--request-secret", request["secret"],
                   "--verifier", verifier)
    if not (access["id"] and access["secret"]):
        raise AssertionError(access)
    admin.refused("access token create", "40", *pair, "--request-key", request["id"], "--request-secret",
                  request["secret"], "--verifier", verifier)
    admin("consumer delete", consumer["id"])
    admin.refused("consumer show", "No consumer with", consumer["id"])


def federation(admin):
    made = admin("identity provider create --remote-id https://idp.example.org --description d --authorization-ttl 30 "
                 "tour", id="tour", enabled=True, description="d", authorization_ttl=30)
    same(made["remote_ids"], ["https://idp.example.org"])
    row(admin("identity provider list"), ID="tour", Enabled=True, Description="d")
    admin("identity provider set --description e --disable --remote-id https://two.example.org tour")
    admin("identity provider show tour", description="e", enabled=False, remote_ids=["https://two.example.org"])
    admin("identity provider set --enable tour")
    rules = [{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "REMOTE_USER"}]}]
    same(admin("mapping create --rules", file("mapping.json", rules), "tour", id="tour")["rules"], rules)
    row(admin("mapping list"), ID="tour")
    rules[0]["local"][0]["user"]["type"] = "ephemeral"
    admin("mapping set --rules", file("mapping.json", rules), "tour")
    same(admin("mapping show tour")["rules"], rules)
    admin("federation protocol create --identity-provider tour --mapping tour openid", id="openid", mapping="tour")
    row(admin("federation protocol list --identity-provider tour"), id="openid", mapping="tour")
    admin("mapping create --rules", file("mapping.json", rules), "tour-two")
    admin.mistaken("federation protocol set --identity-provider tour --mapping tour-two openid")
    admin("federation protocol show --identity-provider tour openid", mapping="tour-two")
    admin("federation protocol delete --identity-provider tour openid")
    same(admin("federation protocol list --identity-provider tour"), [])
    admin("mapping delete tour tour-two")
    no_row(admin("mapping list"), ID="tour")
    admin("identity provider delete tour")
    admin.refused("identity provider show tour", "No IdentityProvider found")
    row(admin("federation project list"), Name="admin")
    admin("role add --user admin --domain default admin")
    row(admin("federation domain list"), ID="default", Name="Default")
    admin("role remove --user admin --domain default admin")


def service_providers(admin):
    urls = ["--auth-url", "https://far.example.org/v3", "--service-provider-url", "https://far.example.org/sp"]
    admin("service provider create --description d", *urls, "far", id="far", enabled=True, description="d",
          auth_url=urls[1], sp_url=urls[3])
    row(admin("service provider list"), ID="far", Enabled=True, Description="d", Auth_URL=urls[1])
    admin("service provider set --description e --disable far", description="e", enabled=False)
    admin("service provider show far", enabled=False, sp_url=urls[3])
    admin("service provider delete far")
    admin.refused("service provider show far", "No ServiceProvider found")


steps = [domains, projects, users_and_groups, roles, catalogue, credentials, application_credentials, trusts, tokens, limits,
         policies, oauth1, federation, service_providers]
