//! Dumps as the three engines write them, and broken ones.
use super::*;
use proptest::prelude::*;

fn rows(text: &str) -> Vec<Vec<(String, String)>> {
    let dump = read(text.as_bytes(), &["user"]).unwrap();
    dump.rows("user").iter().map(|r| r.0.clone().into_iter().collect()).collect()
}

fn ann() -> Vec<(String, String)> {
    [("enabled", "1"), ("extra", r#"{"email": "a'b\"c"}"#), ("id", "a1")].map(|(k, v)| (k.into(), v.into())).into()
}

#[test]
fn mariadb() {
    let text = r#"
-- MariaDB dump 10.19
/*!40101 SET NAMES utf8mb4 */;
DROP TABLE IF EXISTS `user`;
CREATE TABLE `user` (
  `id` varchar(64) NOT NULL,
  `extra` text DEFAULT NULL COMMENT 'a, (b); c',
  `enabled` tinyint(1) DEFAULT NULL,
  `domain_id` varchar(64),
  PRIMARY KEY (`id`),
  UNIQUE KEY `ixu` (`id`,`domain_id`),
  CONSTRAINT `c` FOREIGN KEY (`domain_id`) REFERENCES `project` (`id`)
) ENGINE=InnoDB;
LOCK TABLES `user` WRITE;
/*!40000 ALTER TABLE `user` DISABLE KEYS */;
INSERT INTO `user` VALUES
('a1','{\"email\": \"a\'b\\\"c\"}',1,NULL),('a2','line\nbreak;',0,'d');
UNLOCK TABLES;
INSERT INTO `token` VALUES ('x;y'),('z');
"#;
    let found = rows(text);
    assert_eq!(found[0], ann());
    assert_eq!(found[1][2], ("extra".to_owned(), "line\nbreak;".to_owned()));
    assert_eq!(read(text.as_bytes(), &["user"]).unwrap().others["token"], 2);
}

#[test]
fn postgresql_by_copy_and_by_insert() {
    let copy = "CREATE TABLE public.\"user\" (\n    id character varying(64) NOT NULL,\n    extra text,\n    enabled boolean\n);\n\
        COPY public.\"user\" (id, extra, enabled) FROM stdin;\na1\t{\"email\": \"a'b\\\\\"c\"}\t1\na2\t\\N\tf\n\\.\n\nSELECT 1;\n";
    let found = rows(copy);
    assert_eq!(found[0], ann());
    assert_eq!(found[1].len(), 2, "NULL is not there");
    let insert = "CREATE TABLE public.\"user\" (id character varying(64) NOT NULL, extra text, enabled boolean);\n\
        INSERT INTO public.\"user\" VALUES ('a1', '{\"email\": \"a''b\\\"c\"}', 1);\n";
    assert_eq!(rows(insert), [ann()]);
}

#[test]
fn sqlite() {
    let text = "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE user (\n\tid VARCHAR(64) NOT NULL, \n\textra TEXT, \n\tenabled BOOLEAN, \n\tPRIMARY KEY (id), \n\tCHECK (enabled IN (0, 1))\n);\n\
        INSERT INTO user VALUES('a1','{\"email\": \"a''b\\\"c\"}',1);\nINSERT INTO \"user\" (\"id\",\"enabled\") VALUES('a2',0);\nCOMMIT;\n";
    let found = rows(text);
    assert_eq!(found[0], ann());
    assert_eq!(found[1], [("enabled".to_owned(), "0".to_owned()), ("id".to_owned(), "a2".to_owned())]);
}

#[test]
fn what_is_broken_is_told_with_its_line() {
    for (text, word) in [
        ("INSERT INTO `user` VALUES ('a');\n", "without names"),
        ("CREATE TABLE user (id text, b text);\nINSERT INTO user VALUES ('a');\n", "1 values for 2"),
        ("CREATE TABLE user (id text);\nINSERT INTO user VALUES ('a;\n", "within a text"),
        ("COPY user (id) FROM stdin;\na\n", "do not end"),
        ("COPY user (id) FROM stdin;\na\tb\n\\.\n", "2 values for 1"),
    ] {
        let error = read(text.as_bytes(), &["user"]).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("line"), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = read(text.as_bytes(), &["user"]);
        let _ = read(format!("CREATE TABLE user (id text{text};\nINSERT INTO user VALUES ({text});\n").as_bytes(), &["user"]);
    }

    /// What an engine would write for any value is read back.
    #[test]
    fn any_value_comes_back(value in "[^\0]{0,60}") {
        let quoted = value.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\r', "\\r");
        let text = format!("CREATE TABLE `user` (`id` text);\nINSERT INTO `user` VALUES ('{quoted}');\n");
        prop_assert_eq!(&rows(&text)[0][0].1, &value);
        let copied = value.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
        let doubled = value.replace('\'', "''");
        let text = format!("CREATE TABLE user (id text);\nINSERT INTO user VALUES ('{doubled}');\n");
        prop_assert_eq!(&rows(&text)[0][0].1, &value);
        let text = format!("COPY public.\"user\" (id) FROM stdin;\n{copied}\n\\.\n");
        prop_assert_eq!(&rows(&text)[0][0].1, &value);
    }
}
