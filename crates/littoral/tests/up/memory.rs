//! How much memory an edge takes, in a real process.

use super::trial::ask;

/// What the code itself takes when it runs for the first time: statements of the database, buffers of its threads.
const FIRST_RUN_MB: f64 = 2.0;

/// Eight updates of 4 MB pass through an edge that holds no more than one and a half of them; the cloud applies block by
/// block and makes version 0 in one piece.
#[test]
fn an_edge_holds_one_update_and_a_little_per_connection() {
    let said = ask(&["bench", "edge", "--nodes", "8", "--params", "1000000"]).unwrap();
    let number = |name: &str| said[name].as_f64().unwrap();
    assert_eq!(number("update_mb").round(), 4.0);
    assert!(number("peak_mb") < number("allowed_mb") + FIRST_RUN_MB, "{said}");
    assert!(number("cloud_peak_mb") < number("cloud_baseline_mb") + 1.5 * number("update_mb") + FIRST_RUN_MB, "{said}");
}

/// The same where nothing is summed: they lie on disk, at the edge and at the cloud, which reads a block of all of them.
#[test]
fn an_edge_that_keeps_each_update_holds_chunks_only() {
    let said = ask(&["bench", "edge", "--nodes", "8", "--params", "1000000", "--unmerged"]).unwrap();
    let number = |name: &str| said[name].as_f64().unwrap();
    assert_eq!(said["unmerged"], true);
    // No sum: less than what is allowed to one by a whole update.
    let allowed = number("allowed_mb") - number("update_mb");
    assert!(number("peak_mb") < allowed + FIRST_RUN_MB, "{said}");
    let block_mb = 8.0 * 4.0 * 65_536.0 / 1e6;
    let allowed = number("cloud_baseline_mb") + 1.5 * number("update_mb") + block_mb;
    assert!(number("cloud_peak_mb") < allowed + FIRST_RUN_MB, "{said}");
}
