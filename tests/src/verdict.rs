//! What the program reports about a warehouse, in a form that tests can compare.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_postgres::{Client, NoTls};

use crate::{Finished, World};

impl World {
    /// Changes the source.
    pub async fn change(&self, sql: &str) {
        self.source.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    }

    /// Runs statements in the warehouse.
    pub async fn in_star(&self, sql: &str) {
        self.warehouse.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    }

    /// A further session on the warehouse.
    pub async fn warehouse_session(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.server.url("warehouse"), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Sets the schema of the star tables in the configuration.
    pub fn use_star_schema(&self, schema: &str) {
        let text = std::fs::read_to_string(self.configuration()).unwrap();
        let text = text.replace("[ingestion]", &format!("schema = \"{schema}\"\n[ingestion]"));
        std::fs::write(self.configuration(), text).unwrap();
    }

    /// Writes the pack's schema.sql.
    pub fn write_schema(&self, text: &str) {
        std::fs::write(self.pack().join("schema.sql"), text).unwrap();
    }

    /// The first column of an ordered query over the warehouse, with spaces between the values.
    pub async fn listed(&self, query: &str) -> String {
        let list = format!("SELECT coalesce(string_agg(v::text, ' '), '') FROM ({query}) AS t (v)");
        self.in_warehouse(&list).await.unwrap()
    }

    /// Waits until a query over the warehouse returns true.
    pub async fn wait_until(&self, query: &str) {
        let started = Instant::now();
        while self.in_warehouse(query).await.as_deref() != Some("t") {
            assert!(started.elapsed() < Duration::from_secs(30), "waited too long for {query}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs `verify`, which must find no difference. Returns the rows that it counts as held back, for each star table
    /// that has any.
    pub async fn held_back(&self) -> BTreeMap<String, u64> {
        let finished = self.blackwater(&["verify"]).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let report = finished.report();
        let count = |table: &Value| (table["table"].as_str().unwrap().into(), table["held_back"].as_u64().unwrap());
        report["tables"].as_array().unwrap().iter().map(count).filter(|(_, rows)| *rows > 0).collect()
    }

    /// Returns the rows in quarantine, each as `table column=value: reason`. `verify` must count exactly these as held back
    /// and find all other rows equal.
    pub async fn quarantine_is_all_that_is_held_back(&self) -> Vec<String> {
        let entries = self.quarantine().await;
        let mut by_table = BTreeMap::<_, BTreeSet<_>>::new();
        for entry in &entries {
            let (table, rest) = entry.split_once(' ').unwrap();
            by_table.entry(table.to_owned()).or_default().insert(rest.split_once(": ").unwrap().0);
        }
        let expected: BTreeMap<_, _> = by_table.into_iter().map(|(table, keys)| (table, keys.len() as u64)).collect();
        assert_eq!(self.held_back().await, expected, "{entries:#?}");
        entries
    }

    /// The findings of a check, each as `level, about: what. remedy`.
    pub async fn findings(&self) -> Vec<String> {
        let finished = self.blackwater(&["check"]).await;
        let report: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"));
        let line = |finding: &Value| {
            let text = |field: &str| finding[field].as_str().unwrap_or_default();
            format!("{}, {}: {}. {}", text("level"), text("about"), text("what"), text("remedy"))
        };
        let findings: Vec<_> = report["findings"].as_array().unwrap_or(&Vec::new()).iter().map(line).collect();
        let has_error = findings.iter().any(|finding| finding.starts_with("error"));
        assert_eq!(finished.code, Some(if has_error { 3 } else { 0 }), "{finished:?}");
        findings
    }

    /// The findings of a check that are errors.
    pub async fn errors(&self) -> Vec<String> {
        self.findings().await.into_iter().filter(|finding| finding.starts_with("error")).collect()
    }
}

impl Finished {
    /// Everything that it printed.
    pub fn printed(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}
