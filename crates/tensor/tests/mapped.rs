//! Files of this test, mapped.

use littoral_tensor::Mapped;
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::{Kind, Matrix};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

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

/// The mapping stays as long as a matrix lies in it.
#[test]
fn a_matrix_lies_in_its_file() {
    let (rows, columns) = (21, 64);
    let bytes: Vec<u8> = (0..rows * columns / 32 * 34).map(|i| (i % 113) as u8).collect();
    let packed = Matrix::pack(Kind::Q8_0, rows, columns, &bytes, &Pool::new(1)).unwrap();
    let mapped = Arc::new(Mapped::new(&file("matrix", &[&[0; 64], packed.packed()].concat())).unwrap());
    mapped.populate();
    let at = mapped[64..].as_ptr();
    let strips = littoral_tensor::quant::Shared::from(mapped).part(64..64 + packed.bytes()).unwrap();
    let matrix = Matrix::from_packed(Kind::Q8_0, rows, columns, strips).unwrap();
    assert_eq!((matrix.packed().as_ptr(), matrix.packed()), (at, packed.packed()));
    let (mut expected, mut got) = (vec![0.0; columns], vec![1.0; columns]);
    for row in 0..rows {
        packed.row(row, &mut expected);
        matrix.row(row, &mut got);
        assert_eq!(got, expected);
    }
}
