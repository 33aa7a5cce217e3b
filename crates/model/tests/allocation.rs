//! A training step allocates nothing: everything is in the scratch.

use littoral_model::{Descent, Examples, Features, Labels, Model, ModelSpec, View, Worker};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    /// Of this thread: the harness has one of its own, which says how long a test takes.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator, whose contract is the same.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
#[cfg_attr(
    not(target_arch = "x86_64"),
    ignore = "products go to the gemm crate there, which packs into memory of its own"
)]
fn a_step_allocates_nothing() {
    let image = View::all(
        Examples::new(
            Features::U8 { width: 784, values: vec![7; 784 * 30], scale: 1.0 / 255.0, offset: 0.0 },
            Labels::Classes { ids: (0..30).map(|row| row % 10).collect(), classes: 10 },
        )
        .unwrap()
        .into(),
    );
    let text = View::all(
        Examples::new(
            Features::Tokens { ids: (0..30 * 20 + 1).map(|i| i % 65).collect(), window: 20 },
            Labels::NextToken,
        )
        .unwrap()
        .into(),
    );
    for (spec, view, outputs) in [
        (r#"{"kind":"softmax"}"#, &image, 10),
        (r#"{"kind":"mlp","hidden":[200,200]}"#, &image, 10),
        (
            r#"{"kind":"cnn","image":[28,28,1],"channels":[8,12],"kernel":5,"pool":2,"norm":"batch","hidden":50}"#,
            &image,
            10,
        ),
        (r#"{"kind":"recurrent","cell":"gru","vocabulary":65,"embedding":8,"hidden":50}"#, &text, 65),
        (r#"{"kind":"recurrent","cell":"lstm","vocabulary":65,"embedding":8,"hidden":50}"#, &text, 65),
    ] {
        let spec: ModelSpec = serde_json::from_str(spec).unwrap();
        let model = Model::build(&spec, view.examples().shape(), outputs).unwrap();
        let mut weights = model.init(1);
        let mut worker = Worker::new(&model, 10);
        let descent = Descent { epochs: 1, batch: 10, learning_rate: 0.01f32, seed: 1 };
        // The first epoch sizes the list of rows.
        worker.descend(&model, &mut weights, view, &descent).unwrap();
        let before = ALLOCATIONS.get();
        let trained = worker.descend(&model, &mut weights, view, &Descent { epochs: 3, ..descent }).unwrap();
        assert_eq!(trained.steps, 9);
        assert_eq!(ALLOCATIONS.get() - before, 0, "{spec:?}");
    }
}
