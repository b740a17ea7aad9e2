//! What `--json` writes, key by key; tests hold this text and the results together.
//!
#![doc = include_str!("schema.md")]

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use crate::args::Scenario;
    use crate::findings::{Findings, Seen};
    use crate::growth::Size;
    use crate::hostile::tests::compared;
    use crate::limit::tests::concluded;
    use crate::outcome::tests::{measured, outcome_of};
    use crate::probe::Busiest;
    use crate::scrape::Reading;
    use crate::series::Moment;
    use crate::tally::Tally;

    /// Keys whose inside is explained in their own line.
    const WHOLE: [&str; 15] = [
        "arguments",
        "host.mitigations",
        "host.sysctls",
        "counts",
        "latency_us",
        "join[].us",
        "server.usage",
        "generator.lateness_us",
        "jitter_us",
        "repair.repair_us",
        "steps[].judged",
        "steps[].ran_out",
        "command",
        "pairs[].without",
        "pairs[].with",
    ];

    /// The documented keys of a kind, those of all kinds included.
    fn documented(kind: &str) -> BTreeSet<String> {
        let parts: Vec<_> = include_str!("schema.md").split("goes on with:").collect();
        let own = parts[match kind {
            "run" => 1,
            "limit" => 2,
            _ => 3,
        }];
        let lines = parts[0].lines().chain(own.lines());
        let keys = lines.filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        keys.map(str::to_owned).collect()
    }

    fn walk(value: &Value, path: &str, keys: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) if !WHOLE.contains(&path) => {
                for (name, inside) in fields {
                    let path =
                        if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(inside, &path, keys);
                }
            }
            Value::Array(items) if !WHOLE.contains(&path) && items.iter().any(Value::is_object) => {
                items.iter().for_each(|item| walk(item, &format!("{path}[]"), keys));
            }
            _ => {
                keys.insert(path.to_owned());
            }
        }
    }

    #[test]
    fn every_key_of_a_run_is_documented_and_every_documented_key_is_there() {
        let outcome = outcome_of(measured(), |observed| {
            let name = "shard-0".to_owned();
            observed.busiest = Some(Busiest { name, cores: 0.5, waited: 0.1 });
            let bucket = "ringcast_forward_latency_seconds_bucket{le=\"0.1\"} 5\n";
            observed.says = Reading::read(bucket).map(|r| r.since(&Reading::default()));
            observed.series = vec![Moment::default()];
            (0..5).for_each(|n| observed.tally.stages.record(crate::tally::Stage::Ice, n));
            (observed.repairs, observed.tally.counts.frames) = (true, 1);
            let size = Size { resident_bytes: 1.0, descriptors: 1.0 };
            observed.seen.ramp = Some(1_000_000_000);
            observed.seen.growth.note(0.0, size);
            observed.seen.own_growth.note(0.0, size);
        });
        let mut value = serde_json::to_value(&outcome).unwrap();
        value["slo"] = serde_json::to_value(outcome.judged(&"p99<=1s".parse().unwrap())).unwrap();
        let mut keys = BTreeSet::new();
        for (part, of) in [("joins", Scenario::Soak), ("idle", Scenario::Idle)] {
            let findings = Findings::new(of, false, &Tally::default(), &Seen::default());
            value[part] = serde_json::to_value(findings).unwrap()[part].clone();
        }
        walk(&value, "", &mut keys);
        assert_eq!(keys, documented("run"));
    }

    #[test]
    fn every_key_of_a_search_is_documented_and_every_documented_key_is_there() {
        let limit = concluded(&[(1.0, true, false), (1.5, false, false)]);
        let mut value = serde_json::to_value(&limit).unwrap();
        // The figures beside a reason depend on the reason.
        value["ran_out"] = serde_json::json!([{ "what": "nothing" }]);
        let mut keys = BTreeSet::new();
        walk(&value, "", &mut keys);
        assert_eq!(keys, documented("limit"));
    }

    #[test]
    fn every_key_of_a_comparison_is_documented_and_every_documented_key_is_there() {
        let mut keys = BTreeSet::new();
        let compared = serde_json::to_value(compared(&[1.0], |_| {})).unwrap();
        walk(&compared, "", &mut keys);
        assert_eq!(keys, documented("hostile"));
    }
}
