-- Keystone 30.0.0 on SQLite: `keystone-manage db_sync` and `bootstrap`, then people, places and roles made by its
-- own managers and hashed by its own hashers (cheap rounds); written by SQLite's dump, other tables left out.
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('742c857f1dfb');
INSERT INTO "alembic_version" VALUES('c88cdce8f248');
CREATE TABLE "assignment" (
	type VARCHAR(12) NOT NULL, 
	actor_id VARCHAR(64) NOT NULL, 
	target_id VARCHAR(64) NOT NULL, 
	role_id VARCHAR(64) NOT NULL, 
	inherited BOOLEAN NOT NULL, 
	PRIMARY KEY (type, actor_id, target_id, role_id, inherited), 
	CONSTRAINT fk_assignment_role_id FOREIGN KEY(role_id) REFERENCES role (id)
);
INSERT INTO "assignment" VALUES('UserProject','8c1221b4d412499bba2479bf479bd1dc','f4a8408b0a77469dab07dd395147e23c','412a524858ba4ff1a404dd7c8e4b0a5a',0);
INSERT INTO "assignment" VALUES('UserProject','033fca1f49dd4623b7ff784e2a1a1e86','5b599f8ea8f24aebade9ab0c9e62778f','75ae81eb8a3b4aab893c0bf5c4bd2990',1);
INSERT INTO "assignment" VALUES('GroupProject','b8720f6b47cf4e8e96e6cb031f7960dc','5b599f8ea8f24aebade9ab0c9e62778f','70a9ef45f6ad4c68b9314e31ba71c4ac',0);
CREATE TABLE credential (
	id VARCHAR(64) NOT NULL, 
	user_id VARCHAR(64) NOT NULL, 
	project_id VARCHAR(64), 
	type VARCHAR(255) NOT NULL, 
	extra TEXT, 
	key_hash VARCHAR(64) NOT NULL, 
	encrypted_blob TEXT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE endpoint (
	id VARCHAR(64) NOT NULL, 
	legacy_endpoint_id VARCHAR(64), 
	interface VARCHAR(8) NOT NULL, 
	service_id VARCHAR(64) NOT NULL, 
	url TEXT NOT NULL, 
	extra TEXT, 
	enabled BOOLEAN DEFAULT '1' NOT NULL, 
	region_id VARCHAR(255), 
	PRIMARY KEY (id), 
	CONSTRAINT endpoint_service_id_fkey FOREIGN KEY(service_id) REFERENCES service (id), 
	CONSTRAINT fk_endpoint_region_id FOREIGN KEY(region_id) REFERENCES region (id)
);
INSERT INTO "endpoint" VALUES('86f863b261274d3f8a1a703ac2f9da39',NULL,'public','d9f110b925794e3bb5f214477b660359','http://127.0.0.1:15099/v3','{}',1,'RegionOne');
INSERT INTO "endpoint" VALUES('ce6472fcd3594e74929da50225215808',NULL,'public','853d5305cc284e5aa458e6f22548213d','http://old.example:8776/v3','{}',1,'RegionOne');
CREATE TABLE federated_user (
	id INTEGER NOT NULL, 
	user_id VARCHAR(64) NOT NULL, 
	idp_id VARCHAR(64) NOT NULL, 
	protocol_id VARCHAR(64) NOT NULL, 
	unique_id VARCHAR(255) NOT NULL, 
	display_name VARCHAR(255), 
	PRIMARY KEY (id), 
	CONSTRAINT federated_user_protocol_id_fkey FOREIGN KEY(protocol_id, idp_id) REFERENCES federation_protocol (id, idp_id) ON DELETE CASCADE, 
	UNIQUE (idp_id, protocol_id, unique_id), 
	FOREIGN KEY(user_id) REFERENCES user (id) ON DELETE CASCADE, 
	FOREIGN KEY(idp_id) REFERENCES identity_provider (id) ON DELETE CASCADE
);
CREATE TABLE "group" (
	id VARCHAR(64) NOT NULL, 
	domain_id VARCHAR(64) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	description TEXT, 
	extra TEXT, 
	PRIMARY KEY (id), 
	CONSTRAINT ixu_group_name_domain_id UNIQUE (domain_id, name)
);
INSERT INTO "group" VALUES('b8720f6b47cf4e8e96e6cb031f7960dc','default','team','t','{}');
CREATE TABLE id_mapping (
	public_id VARCHAR(64) NOT NULL, 
	domain_id VARCHAR(64) NOT NULL, 
	local_id VARCHAR(255) NOT NULL, 
	entity_type VARCHAR(5) NOT NULL, 
	PRIMARY KEY (public_id), 
	CONSTRAINT domain_id UNIQUE (domain_id, local_id, entity_type)
);
CREATE TABLE implied_role (
	prior_role_id VARCHAR(64) NOT NULL, 
	implied_role_id VARCHAR(64) NOT NULL, 
	PRIMARY KEY (prior_role_id, implied_role_id), 
	CONSTRAINT implied_role_prior_role_id_fkey FOREIGN KEY(prior_role_id) REFERENCES role (id) ON DELETE CASCADE, 
	CONSTRAINT implied_role_implied_role_id_fkey FOREIGN KEY(implied_role_id) REFERENCES role (id) ON DELETE CASCADE
);
INSERT INTO "implied_role" VALUES('75ae81eb8a3b4aab893c0bf5c4bd2990','5a62e039c77d46968ff02fd34732e62a');
INSERT INTO "implied_role" VALUES('3ba76bd9b59a4b3998811c053ee6dc36','75ae81eb8a3b4aab893c0bf5c4bd2990');
INSERT INTO "implied_role" VALUES('412a524858ba4ff1a404dd7c8e4b0a5a','3ba76bd9b59a4b3998811c053ee6dc36');
CREATE TABLE local_user (
	id INTEGER NOT NULL, 
	user_id VARCHAR(64) NOT NULL, 
	domain_id VARCHAR(64) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	failed_auth_count INTEGER, 
	failed_auth_at DATETIME, 
	PRIMARY KEY (id), 
	CONSTRAINT local_user_user_id_fkey FOREIGN KEY(user_id, domain_id) REFERENCES user (id, domain_id) ON DELETE CASCADE ON UPDATE CASCADE, 
	UNIQUE (domain_id, name), 
	UNIQUE (user_id)
);
INSERT INTO "local_user" VALUES(1,'8c1221b4d412499bba2479bf479bd1dc','default','admin',0,NULL);
INSERT INTO "local_user" VALUES(2,'033fca1f49dd4623b7ff784e2a1a1e86','default','by-bcrypt',0,NULL);
INSERT INTO "local_user" VALUES(3,'d45acb4a41124d0b90afa755a1551b9e','default','by-scrypt',0,NULL);
INSERT INTO "local_user" VALUES(4,'2effeb7f7bd849d6b849c501b975034b','default','by-pbkdf2',0,NULL);
INSERT INTO "local_user" VALUES(5,'3cc2a25c52f84a5789f4cf385e018934','default','by-bcrypt-sha256',0,NULL);
INSERT INTO "local_user" VALUES(6,'403a3ea524f9446fa400a4b03d33113f','default','disabled',NULL,NULL);
CREATE TABLE password (
	id INTEGER NOT NULL, 
	local_user_id INTEGER NOT NULL, 
	expires_at DATETIME, 
	self_service BOOLEAN DEFAULT '0' NOT NULL, 
	password_hash VARCHAR(255), 
	created_at_int BIGINT DEFAULT '0' NOT NULL, 
	expires_at_int BIGINT, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(local_user_id) REFERENCES local_user (id) ON DELETE CASCADE
);
INSERT INTO "password" VALUES(1,1,NULL,0,'$2b$04$SF9Oy/q6kBilNorOalCTdeAqQoavPfyDweWrort7u0fsdRYmsnFc.',1795682816571471,NULL,'2026-11-26 08:46:56.571471');
INSERT INTO "password" VALUES(2,2,NULL,0,'$2b$04$ZbIHvuBjYIUoJCQIfdIb8OH.S0qu3HRJBLAgcjKQLCneN7YjmKFK2',1795683609982399,NULL,'2026-11-26 09:00:09.982399');
INSERT INTO "password" VALUES(3,3,NULL,0,'$scrypt$ln=16,r=8,p=1$bRQjWOhgISKyvGF1U1xGFw$JQ6uY62ZJd4zPuBdFru8IvIRaaZe/gXLkg+9GQZS5tQ',1795683610074647,NULL,'2026-11-26 09:00:10.074647');
INSERT INTO "password" VALUES(4,4,NULL,0,'$pbkdf2-sha512$1000$zaoulA1plQ9wm14IYvpgaA$QrzavHM0gH2mJ8cEttRRzZlEczyL025Rp0v6U6O+i5CBG+C3HkOdvRSar2dgZ9TqYigpnxRViGtG/70pOuODIg',1795683610802792,NULL,'2026-11-26 09:00:10.802792');
INSERT INTO "password" VALUES(5,5,NULL,0,'$bcrypt-sha256$v=2,t=2b,r=4$NRF.1/7A4chAMPvHnP7zt.$8.fS8LZ4OrS4TZS1rzxd9kjjcY1jHgu',1795683610865455,NULL,'2026-11-26 09:00:10.865455');
INSERT INTO "password" VALUES(6,6,NULL,0,'$2b$04$W1X/cpLcf9cIdNt/Qmqja.85En0X9mFLe6pgFMu4TqiYmbm8mZ1cy',1795683610921886,NULL,'2026-11-26 09:00:10.921886');
CREATE TABLE project (
	id VARCHAR(64) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	extra TEXT, 
	description TEXT, 
	enabled BOOLEAN, 
	domain_id VARCHAR(64) NOT NULL, 
	parent_id VARCHAR(64), 
	is_domain BOOLEAN DEFAULT '0' NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT ixu_project_name_domain_id UNIQUE (domain_id, name), 
	CONSTRAINT project_domain_id_fkey FOREIGN KEY(domain_id) REFERENCES project (id), 
	CONSTRAINT project_parent_id_fkey FOREIGN KEY(parent_id) REFERENCES project (id)
);
INSERT INTO "project" VALUES('<<keystone.domain.root>>','<<keystone.domain.root>>','{}','',0,'<<keystone.domain.root>>',NULL,1);
INSERT INTO "project" VALUES('default','Default','{}','The default domain',1,'<<keystone.domain.root>>',NULL,1);
INSERT INTO "project" VALUES('f4a8408b0a77469dab07dd395147e23c','admin','{}','Bootstrap project for initializing the cloud.',1,'default','default',0);
INSERT INTO "project" VALUES('cdb21055364e42cbaef16245fc8b11ef','other','{}','another domain',1,'<<keystone.domain.root>>',NULL,1);
INSERT INTO "project" VALUES('5b599f8ea8f24aebade9ab0c9e62778f','parent','{"color": "x"}','it''s "quoted" \ here',1,'default','default',0);
INSERT INTO "project" VALUES('a81eb328903f4cd281f15512ed297a7c','child','{}','',1,'default','5b599f8ea8f24aebade9ab0c9e62778f',0);
CREATE TABLE project_option (
	project_id VARCHAR(64) NOT NULL, 
	option_id VARCHAR(4) NOT NULL, 
	option_value TEXT, 
	PRIMARY KEY (project_id, option_id), 
	FOREIGN KEY(project_id) REFERENCES project (id) ON DELETE CASCADE
);
CREATE TABLE project_tag (
	project_id VARCHAR(64) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	PRIMARY KEY (project_id, name), 
	UNIQUE (project_id, name), 
	FOREIGN KEY(project_id) REFERENCES project (id) ON DELETE CASCADE
);
INSERT INTO "project_tag" VALUES('5b599f8ea8f24aebade9ab0c9e62778f','blue');
CREATE TABLE region (
	id VARCHAR(255) NOT NULL, 
	description VARCHAR(255) NOT NULL, 
	parent_region_id VARCHAR(255), 
	extra TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "region" VALUES('RegionOne','',NULL,'{}');
CREATE TABLE role (
	id VARCHAR(64) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	extra TEXT, 
	domain_id VARCHAR(64) DEFAULT '<<null>>' NOT NULL, 
	description VARCHAR(255), 
	PRIMARY KEY (id), 
	CONSTRAINT ixu_role_name_domain_id UNIQUE (name, domain_id)
);
INSERT INTO "role" VALUES('5a62e039c77d46968ff02fd34732e62a','reader','{}','<<null>>',NULL);
INSERT INTO "role" VALUES('75ae81eb8a3b4aab893c0bf5c4bd2990','member','{}','<<null>>',NULL);
INSERT INTO "role" VALUES('3ba76bd9b59a4b3998811c053ee6dc36','manager','{}','<<null>>',NULL);
INSERT INTO "role" VALUES('412a524858ba4ff1a404dd7c8e4b0a5a','admin','{}','<<null>>',NULL);
INSERT INTO "role" VALUES('008f0ddc40994541807d79ff3ecb08ff','service','{}','<<null>>',NULL);
INSERT INTO "role" VALUES('70a9ef45f6ad4c68b9314e31ba71c4ac','special','{}','<<null>>',NULL);
CREATE TABLE role_option (
	role_id VARCHAR(64) NOT NULL, 
	option_id VARCHAR(4) NOT NULL, 
	option_value TEXT, 
	PRIMARY KEY (role_id, option_id), 
	FOREIGN KEY(role_id) REFERENCES role (id) ON DELETE CASCADE
);
INSERT INTO "role_option" VALUES('5a62e039c77d46968ff02fd34732e62a','IMMU','true');
INSERT INTO "role_option" VALUES('75ae81eb8a3b4aab893c0bf5c4bd2990','IMMU','true');
INSERT INTO "role_option" VALUES('3ba76bd9b59a4b3998811c053ee6dc36','IMMU','true');
INSERT INTO "role_option" VALUES('412a524858ba4ff1a404dd7c8e4b0a5a','IMMU','true');
INSERT INTO "role_option" VALUES('008f0ddc40994541807d79ff3ecb08ff','IMMU','true');
CREATE TABLE service (
	id VARCHAR(64) NOT NULL, 
	type VARCHAR(255), 
	enabled BOOLEAN DEFAULT '1' NOT NULL, 
	extra TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "service" VALUES('d9f110b925794e3bb5f214477b660359','identity',1,'{"name": "keystone"}');
INSERT INTO "service" VALUES('853d5305cc284e5aa458e6f22548213d','volumev3',1,'{"name": "cinderv3", "description": "d"}');
CREATE TABLE system_assignment (
	type VARCHAR(64) NOT NULL, 
	actor_id VARCHAR(64) NOT NULL, 
	target_id VARCHAR(64) NOT NULL, 
	role_id VARCHAR(64) NOT NULL, 
	inherited BOOLEAN NOT NULL, 
	PRIMARY KEY (type, actor_id, target_id, role_id, inherited)
);
INSERT INTO "system_assignment" VALUES('UserSystem','8c1221b4d412499bba2479bf479bd1dc','system','412a524858ba4ff1a404dd7c8e4b0a5a',0);
INSERT INTO "system_assignment" VALUES('UserSystem','2effeb7f7bd849d6b849c501b975034b','system','5a62e039c77d46968ff02fd34732e62a',0);
CREATE TABLE user (
	id VARCHAR(64) NOT NULL, 
	extra TEXT, 
	enabled BOOLEAN, 
	default_project_id VARCHAR(64), 
	created_at DATETIME, 
	last_active_at DATE, 
	domain_id VARCHAR(64) NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT ixu_user_id_domain_id UNIQUE (id, domain_id)
);
INSERT INTO "user" VALUES('8c1221b4d412499bba2479bf479bd1dc','{}',1,NULL,'2026-11-26 08:46:56.599753',NULL,'default');
INSERT INTO "user" VALUES('033fca1f49dd4623b7ff784e2a1a1e86','{"email": "by-bcrypt@example.org"}',1,NULL,'2026-11-26 09:00:10.003550',NULL,'default');
INSERT INTO "user" VALUES('d45acb4a41124d0b90afa755a1551b9e','{"email": "by-scrypt@example.org"}',1,NULL,'2026-11-26 09:00:10.744179',NULL,'default');
INSERT INTO "user" VALUES('2effeb7f7bd849d6b849c501b975034b','{"email": "by-pbkdf2@example.org"}',1,NULL,'2026-11-26 09:00:10.803940',NULL,'default');
INSERT INTO "user" VALUES('3cc2a25c52f84a5789f4cf385e018934','{"email": "by-bcrypt-sha256@example.org"}',1,NULL,'2026-11-26 09:00:10.870043',NULL,'default');
INSERT INTO "user" VALUES('403a3ea524f9446fa400a4b03d33113f','{"email": "disabled@example.org"}',0,NULL,'2026-11-26 09:00:10.925239',NULL,'default');
CREATE TABLE user_group_membership (
	user_id VARCHAR(64) NOT NULL, 
	group_id VARCHAR(64) NOT NULL, 
	PRIMARY KEY (user_id, group_id), 
	CONSTRAINT fk_user_group_membership_user_id FOREIGN KEY(user_id) REFERENCES user (id), 
	CONSTRAINT fk_user_group_membership_group_id FOREIGN KEY(group_id) REFERENCES "group" (id)
);
INSERT INTO "user_group_membership" VALUES('d45acb4a41124d0b90afa755a1551b9e','b8720f6b47cf4e8e96e6cb031f7960dc');
CREATE TABLE user_option (
	user_id VARCHAR(64) NOT NULL, 
	option_id VARCHAR(4) NOT NULL, 
	option_value TEXT, 
	PRIMARY KEY (user_id, option_id), 
	FOREIGN KEY(user_id) REFERENCES user (id) ON DELETE CASCADE
);
