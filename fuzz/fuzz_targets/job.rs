//! A job: the text of a person (an even first byte), or a cloud's task for a device (an odd one). Both sides must reckon
//! with the same job.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::one_line;
use littoral_node::job::{JobSpec, Task};
use littoral_wire::message::{SPEC_BYTES_MAX, Work};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let parsed = if choice.is_multiple_of(2) {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        JobSpec::parse(text).map(|spec| Task { spec, population: 1 })
    } else {
        Task::decode(bytes)
    };
    let task = match parsed {
        Ok(task) => task,
        Err(error) => return one_line(error),
    };
    task.spec.remarks().into_iter().for_each(one_line);

    let encoded = task.encode();
    assert!(encoded.len() <= SPEC_BYTES_MAX, "a job that no device can be told");
    let told = Task::decode(&encoded).expect("a task that we encoded");
    assert_eq!((told.spec.text(), told.population), (task.spec.text(), task.population));
    for work in [Work::Statistics, Work::Train, Work::Evaluate] {
        assert_eq!(told.spec.plan(work), task.spec.plan(work));
    }

    let text = toml::to_string(task.spec.text()).expect("a job as text");
    if text.len() <= SPEC_BYTES_MAX / 2 {
        assert_eq!(JobSpec::parse(&text).expect("a job that we wrote").text(), task.spec.text());
    }
});
