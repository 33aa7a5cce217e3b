//! Jobs for people.

use crate::output::{line, table};
use crate::privacy::shortened;
use serde_json::Value;

fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn accuracy(value: &Value) -> String {
    value["accuracy"].as_f64().map_or(String::new(), |a| format!("{a:.4}"))
}

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// Before its first version is made, a job has not said which round it is in.
fn begun(job: &Value) -> bool {
    !text(job, "model").is_empty()
}

pub fn list(reply: &Value) {
    let row = |job: &Value| {
        let rounds = match begun(job) {
            true => format!("{}/{}", text(job, "round"), text(job, "rounds")),
            false => String::new(),
        };
        let name = |field| text(job, field);
        vec![name("job"), name("name"), name("state"), rounds, accuracy(&job["last"]), name("data"), name("why")]
    };
    let rows: Vec<Vec<String>> = items(reply, "jobs").iter().map(row).collect();
    table(&["JOB", "NAME", "STATE", "ROUND", "ACCURACY", "DATA", "WHY"], &rows);
}

/// One line about where a job stands.
pub fn progress(job: &Value) -> String {
    let mut out = format!("job {} {}", text(job, "job"), text(job, "state"));
    let collecting = job["state"] == "collecting";
    if begun(job) {
        out += &format!(": round {} of {}", text(job, "round"), text(job, "rounds"));
        if collecting {
            out += &format!(", {} of {} {} updates in", text(job, "in"), text(job, "wanted"), text(job, "work"));
        }
    }
    let last = &job["last"];
    if let Some(loss) = last["train_loss"].as_f64() {
        out += &format!(", loss {loss:.4}");
    }
    match (last["accuracy"].is_number(), last["test_loss"].as_f64()) {
        (true, _) => out += &format!(", accuracy {}", accuracy(last)),
        // Numbers are not right or wrong.
        (false, Some(loss)) => out += &format!(", held-out loss {loss:.4}"),
        _ => {}
    }
    // While updates come in, the count has said it.
    match job["why"].as_str() {
        Some(why) if !why.is_empty() && !collecting => out + &format!(": {why}"),
        _ => out,
    }
}

/// What a watcher is told after `before`: a new version, or that nothing goes on, and why. Updates come in faster than a
/// person reads.
pub fn news(before: &Value, job: &Value) -> Option<String> {
    let differ = |field: &str| before[field] != job[field];
    match job["state"].as_str() {
        Some("preparing" | "collecting" | "opening" | "applying") => {
            let new_version = !before.is_null() && differ("version") && job["version"].as_u64() > Some(0);
            (before.is_null() || new_version).then(|| progress(job))
        }
        _ => (differ("state") || differ("why")).then(|| progress(job)),
    }
}

/// The column of the worst tenth of devices.
const WORST: usize = 6;

pub fn details(job: &Value) {
    line(&progress(job));
    for (label, field) in [
        ("name", "name"),
        ("algorithm", "algorithm"),
        ("data set", "data"),
        ("submitted by", "submitted_by"),
        ("model", "model"),
    ] {
        let value = text(job, field);
        if !value.is_empty() {
            line(&format!("  {label:<13}{value}"));
        }
    }
    guaranteed(job).iter().for_each(|text| line(text));
    let masked = &job["secure_aggregation"];
    for session in items(masked, "sessions") {
        let number = |field| text(session, field);
        let group = Some(number("group")).filter(|group| !group.is_empty());
        let group = group.map_or(String::new(), |group| format!(", devices of {group}"));
        line(&format!(
            "  {:<13}{} devices, degree {}, threshold {}, {} or more are opened together, threat {}{group}",
            "masked sum",
            number("devices"),
            number("degree"),
            number("threshold"),
            number("minimum"),
            number("threat"),
        ));
    }
    if !text(masked, "phase").is_empty() {
        line(&format!("  {:<13}{}", "step", text(job, "why")));
    }
    if let (Some(bytes), Some(ratio)) = (job["update_bytes"].as_u64(), job["compression_ratio"].as_f64()) {
        let (whole, by) = (text(job, "uncompressed_bytes"), text(job, "compression"));
        let by = if by.is_empty() { "not compressed".into() } else { format!("compressed by {by}") };
        line(&format!(
            "  {:<13}{bytes} bytes per device and round, {by}; {whole} in 32 bits ({ratio:.1} x)",
            "updates"
        ));
    }
    let down = &job["downlink"];
    if let (Some(bytes), Some(ratio)) = (down["bytes"].as_u64(), down["ratio"].as_f64()) {
        let (name, new, whole) = (text(down, "name"), text(down, "bytes_new"), text(down, "uncompressed_bytes"));
        line(&format!(
            "  {:<13}{bytes} bytes per device and round by {name}, {new} for a new device; {whole} in 32 bits ({ratio:.1} x)",
            "models"
        ));
    }
    let spread = items(job, "versions").iter().find(|version| version["accuracy_mean_over_devices"].is_number());
    if let Some(spread) = spread {
        let figure = |field: &str| spread[field].as_f64().unwrap_or_default();
        line(&format!(
            "  {:<13}accuracy {:.4} in the mean over devices, standard deviation {:.4}, worst tenth {:.3}",
            "devices",
            figure("accuracy_mean_over_devices"),
            figure("accuracy_variance").sqrt(),
            figure("worst_decile_accuracy"),
        ));
    }
    if let Some(version) = items(job, "versions").iter().find(|version| version["drift"].is_object()) {
        let drift = &version["drift"];
        let figure = |field: &str| drift[field].as_f64().unwrap_or_default();
        let said = if drift["drifted"] == true { "drifted: " } else { "" };
        line(&format!(
            "  {:<13}{said}{} are {:.3} away from the first versions (of 1), {:.3} is usual",
            "drift",
            text(drift, "of"),
            figure("distance"),
            figure("usual"),
        ));
    }
    if let Some(version) = items(job, "versions").iter().find(|version| version["chosen_devices"].is_number()) {
        let names: Vec<&str> = items(version, "chosen").iter().filter_map(Value::as_str).take(8).collect();
        let chosen = version["chosen_devices"].as_u64().unwrap_or_default();
        let more = if chosen > names.len() as u64 { ", …" } else { "" };
        let (of, number) = (text(version, "included"), text(version, "version"));
        line(&format!("  {:<13}{chosen} of {of} updates made version {number}: {}{more}", "chosen", names.join(", ")));
    }
    for note in items(job, "notes") {
        line(&format!("  {:<13}{}", "note", note.as_str().unwrap_or_default()));
    }
    for declined in items(job, "declined") {
        let (device, why, version) = (text(declined, "device"), text(declined, "why"), &declined["version"]);
        let again = declined["times"].as_u64().filter(|times| *times > 1);
        let again = again.map_or(String::new(), |times| format!(" ({times} times)"));
        line(&format!("  {:<13}{device}, version {version}: {why}{again}", "declined"));
    }
    let versions = items(job, "versions");
    if versions.is_empty() {
        return;
    }
    // Where updates may be old.
    let old = versions.iter().any(|version| version["staleness"].is_number());
    // Where the job watches for it.
    let watched = versions.iter().any(|version| version["drift"].is_object());
    let row = |version: &Value| {
        let drift = &version["drift"];
        let drift = drift["distance"].as_f64().map_or(String::new(), |distance| {
            format!("{distance:.3}{}", if drift["drifted"] == true { " drifted" } else { "" })
        });
        let age = version["staleness"].as_f64().map_or(String::new(), |mean| format!("{mean:.1}"));
        let loss = |field: &str| version[field].as_f64().map_or(String::new(), |loss| format!("{loss:.4}"));
        let name = |field| text(version, field);
        let mut row = vec![
            name("version"),
            name("work"),
            name("included"),
            loss("train_loss"),
            loss("test_loss"),
            accuracy(version),
            loss("worst_decile_accuracy"),
            name("test_rows"),
            name("took_ms"),
        ];
        row.extend(old.then_some(age));
        row.extend(watched.then_some(drift));
        row
    };
    let mut rows: Vec<Vec<String>> = versions.iter().map(row).collect();
    let mut head =
        vec!["VERSION", "WORK", "DEVICES", "LOSS", "TEST LOSS", "ACCURACY", "WORST TENTH", "TEST ROWS", "TOOK MS"];
    head.extend(old.then_some("MEAN AGE"));
    head.extend(watched.then_some("DRIFT"));
    // Few jobs tell it.
    if rows.iter().all(|row| row[WORST].is_empty()) {
        head.remove(WORST);
        rows.iter_mut().for_each(|row| drop(row.remove(WORST)));
    }
    table(&head, &rows);
}

/// The plan, and what the job guarantees to whom: a line each. The plan says the latter too.
fn guaranteed(job: &Value) -> Vec<String> {
    let privacy = &job["privacy"];
    let told = text(privacy, "told");
    let plan = items(job, "plan").iter().map(|plan| plan.as_str().unwrap_or_default()).filter(|plan| *plan != told);
    let mut lines: Vec<String> = plan.map(|plan| format!("  {:<13}{}", "plan", shortened(plan))).collect();
    if !told.is_empty() {
        lines.push(format!("  {:<13}{}", "privacy", shortened(&told)));
    }
    let viewers: Vec<_> = items(privacy, "viewers").iter().map(|v| (text(v, "viewer"), text(v, "why"))).collect();
    let width = viewers.iter().map(|(name, _)| name.chars().count() + 2).max().unwrap_or(0).max(13);
    lines.extend(viewers.iter().map(|(name, why)| format!("  {name:<width$}{why}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_watcher_reads_versions_and_reasons_only() {
        let collecting = |version: u64, arrived: u64| {
            let last = json!({"train_loss": 0.5, "accuracy": 0.75});
            json!({"job": 1, "state": "collecting", "version": version, "round": version, "rounds": 9, "in": arrived,
                "wanted": 2, "work": "train", "model": "a", "why": "1 of 2 updates are in", "last": last})
        };
        let waiting = |why: &str| json!({"job": 1, "state": "waiting", "version": 1, "why": why});
        assert!(news(&Value::Null, &collecting(1, 0)).is_some());
        assert_eq!(news(&collecting(1, 0), &collecting(1, 1)), None);
        let line = "job 1 collecting: round 2 of 9, 0 of 2 train updates in, loss 0.5000, accuracy 0.7500";
        assert_eq!(news(&collecting(1, 2), &collecting(2, 0)).as_deref(), Some(line));
        assert_eq!(news(&collecting(1, 1), &waiting("a")).as_deref(), Some("job 1 waiting: a"));
        assert_eq!(news(&waiting("a"), &waiting("a")), None);
        assert!(news(&waiting("a"), &waiting("b")).is_some());
    }

    #[test]
    fn a_guarantee_is_said_once_and_in_columns() {
        let told = "Little (ε = 2700000000000000000000.00, δ = 1e-5).";
        let viewers = json!([
            {"viewer": "whoever gets the models", "why": "sees released models"},
            {"viewer": "an edge", "why": "sees sums"},
        ]);
        let job = json!({"plan": ["20 bits", told], "privacy": {"told": told, "viewers": viewers}});
        let lines = [
            "  plan         20 bits",
            "  privacy      Little (ε = 2.7e21, δ = 1e-5).",
            "  whoever gets the models  sees released models",
            "  an edge                  sees sums",
        ];
        assert_eq!(guaranteed(&job), lines);
        assert_eq!(guaranteed(&json!({"plan": ["20 bits"], "privacy": {}})), lines[..1]);
    }
}
