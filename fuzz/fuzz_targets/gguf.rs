//! A language model's file, from a stranger. What is taken lies in the file, and can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::one_line;
use littoral_tensor::gguf::{Array, Entry, Gguf, Tensor, Value, Writer};

fuzz_target!(|bytes: &[u8]| {
    let gguf = match Gguf::parse(bytes) {
        Ok(gguf) => gguf,
        Err(error) => return one_line(error),
    };
    gguf.metadata().entries().iter().for_each(getters_agree);
    let mut known: Vec<Tensor<'_>> = Vec::new();
    for info in gguf.tensors() {
        assert_eq!(gguf.find(info.name), Some(info));
        match gguf.tensor(info.name) {
            Ok(tensor) => known.push(tensor),
            Err(error) => one_line(error),
        }
    }
    assert!(known.iter().all(|tensor| tensor.bytes == &bytes[tensor.range.clone()]));
    // A file's alignment may be padding of gigabytes.
    if gguf.alignment() <= 1 << 12 {
        reads_again(&gguf, &known);
    }
    known.sort_by_key(|tensor| tensor.range.start);
    assert!(known.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start), "tensors that overlap");
});

/// A getter gives the value, or says in one line why not.
fn getters_agree(entry: &Entry<'_>) {
    let _ = entry.u32().map_err(one_line).map(|n| assert_eq!(entry.u64(), Ok(n.into())));
    let _ = entry.f32().map_err(one_line);
    let _ = entry.bool().map_err(one_line).map(|value| assert_eq!(entry.value, Value::Bool(value)));
    let _ = entry.str().map_err(one_line).map(|value| assert_eq!(entry.value, Value::Str(value)));
    let Value::Array(array) = entry.value else {
        return drop(entry.u32s().map_err(one_line));
    };
    items_hold(&array);
    let len = array.len();
    let _ = entry.strings().map_err(one_line).map(|items| assert_eq!((items.len(), items.count()), (len, len)));
    let _ = entry.f32s().map_err(one_line).map(|items| assert_eq!(items.len(), len));
    let _ = entry.i32s().map_err(one_line).map(|items| assert_eq!(items.len(), len));
    let _ = entry.u32s().map_err(one_line).map(|items| assert_eq!(items.len(), len));
}

/// As many items as promised, each of the type promised, in arrays within, too.
fn items_hold(array: &Array<'_>) {
    let mut count = 0;
    for item in array.iter() {
        assert_eq!(item.value_type(), array.of());
        if let Value::Array(inner) = item {
            items_hold(&inner);
        }
        count += 1;
    }
    assert_eq!(count, array.len());
}

fn reads_again(gguf: &Gguf<'_>, known: &[Tensor<'_>]) {
    let mut writer = Writer::new();
    for entry in gguf.metadata().entries() {
        writer.set(entry.key, entry.value).expect("a key that was read");
    }
    for tensor in known {
        writer.tensor(tensor.name, tensor.dims(), tensor.kind, tensor.bytes).expect("a tensor that was read");
    }
    let mut written = Vec::new();
    writer.write(&mut written).expect("memory to write to");
    let again = Gguf::parse(&written).expect("what was written");
    // As text, since floats that are no numbers differ from themselves.
    let values = |gguf: &Gguf<'_>| {
        let text = gguf.metadata().entries().iter().map(|entry| format!("{} {:?}", entry.key, entry.value));
        text.collect::<Vec<_>>()
    };
    assert_eq!(values(&again), values(gguf));
    assert_eq!(again.tensors().len(), known.len());
    for tensor in known {
        let read = again.tensor(tensor.name).expect("the tensor that was written");
        assert_eq!((read.kind, read.dims(), read.bytes), (tensor.kind, tensor.dims(), tensor.bytes));
    }
}
