//! Files of this test, mapped.

use littoral_tensor::Mapped;
use std::fs::File;
use std::io::Write;

/// A file without a name, so that it ends with the test.
fn file(name: &str, bytes: &[u8]) -> File {
    let path = std::env::temp_dir().join(format!("littoral-mapped-{name}-{}", std::process::id()));
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    file.write_all(bytes).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

#[test]
fn bytes_are_the_files_also_after_it_is_closed() {
    assert_eq!(&Mapped::new(&file("few", b"few bytes")).unwrap()[..], b"few bytes");
    assert_eq!(&Mapped::new(&file("none", b"")).unwrap()[..], b"");
}

#[cfg(unix)]
#[test]
fn a_folder_cannot_be_mapped() {
    assert!(Mapped::new(&File::open(std::env::temp_dir()).unwrap()).is_err());
}

/// Kilobytes of the mapping that are in memory.
#[cfg(target_os = "linux")]
fn resident_kb(mapped: &Mapped) -> usize {
    let start = format!("{:x}-", mapped.as_ptr() as usize);
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let of_it = maps.lines().skip_while(|line| !line.starts_with(&start));
    let resident = of_it.skip(1).find_map(|line| line.strip_prefix("Rss:")).unwrap();
    resident.trim().trim_end_matches(" kB").parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_forgotten_leaves_memory_and_reads_the_same() {
    let bytes: Vec<u8> = (0..4 << 20).map(|i: u32| (i % 251) as u8).collect();
    let mapped = Mapped::new(&file("forget", &bytes)).unwrap();
    assert_eq!(mapped[..], bytes);
    assert_eq!(resident_kb(&mapped), 4096);
    mapped.forget(1 << 20..4 << 20);
    // Less if the first bytes shared a huge page with the rest: a huge page of a file leaves as a whole.
    assert!(resident_kb(&mapped) <= 1024);
    assert_eq!(mapped[..], bytes);
    mapped.forget(0..usize::MAX);
    assert_eq!(resident_kb(&mapped), 0);
    mapped.forget(usize::MAX..usize::MAX);
    assert_eq!(mapped[..], bytes);
}
