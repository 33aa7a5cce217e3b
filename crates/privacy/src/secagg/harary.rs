//! Who is whose neighbour: a random Harary graph.
//!
//! Bell et al. 2020 (see [`parameters`](super::parameters)), section 3.1, algorithm 2: the vertices are shuffled and laid on
//! a circle; each is joined to the `degree / 2` next ones on both sides. The graph is as random as the seed; nobody may be
//! able to choose the seed after choosing the vertices.

use super::prg::Uniform;

/// The graph on `n` vertices, each with `degree` neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    degree: u32,
    /// The vertex at each place of the circle.
    vertex: Vec<u32>,
    /// The place of each vertex.
    place: Vec<u32>,
}

impl Graph {
    /// `degree` is even; one of `n - 1` or more makes the complete graph.
    pub fn new(n: u32, degree: u32, seed: &[u8; 32]) -> Self {
        let mut vertex: Vec<u32> = (0..n).collect();
        let mut uniform = Uniform::new(seed);
        // Durstenfeld 1964.
        for i in (1..vertex.len()).rev() {
            vertex.swap(i, uniform.below(i as u64 + 1) as usize);
        }
        let mut place = vec![0; vertex.len()];
        vertex.iter().enumerate().for_each(|(at, &v)| place[v as usize] = at as u32);
        Self { degree: degree.min(n.saturating_sub(1)), vertex, place }
    }

    pub fn degree(&self) -> u32 {
        self.degree
    }

    /// The neighbours of a vertex below n, ascending.
    pub fn neighbours(&self, of: u32) -> Vec<u32> {
        let mut found: Vec<u32> = self.around(of).collect();
        found.sort_unstable();
        found
    }

    /// Where `neighbour` stands among the neighbours of a vertex, ascending.
    pub fn slot(&self, of: u32, neighbour: u32) -> Option<usize> {
        let (mut below, mut there) = (0, false);
        for vertex in self.around(of) {
            below += usize::from(vertex < neighbour);
            there |= vertex == neighbour;
        }
        there.then_some(below)
    }

    /// The neighbours of a vertex as they lie around it on the circle.
    fn around(&self, of: u32) -> impl Iterator<Item = u32> {
        let n = self.vertex.len();
        let at = self.place[of as usize] as usize;
        // In the complete graph everybody is met going forward.
        let complete = self.degree as usize + 1 >= n;
        let (forward, backward) =
            if complete { (n - 1, 0) } else { (self.degree as usize / 2, self.degree as usize / 2) };
        let ahead = (1..=forward).map(move |d| at + d).chain((1..=backward).map(move |d| at + n - d));
        ahead.map(move |place| self.vertex[if place < n { place } else { place - n }])
    }
}

/// The neighbours of one vertex, ascending: [`Graph::neighbours`] of a graph that is used once.
pub fn neighbours_of(index: u32, n: u32, degree: u32, seed: &[u8; 32]) -> Vec<u32> {
    Graph::new(n, degree, seed).neighbours(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vertex_has_its_degree_and_is_its_neighbours_neighbour() {
        for (n, degree) in [(3, 2), (4, 2), (4, 3), (5, 4), (6, 2), (6, 4), (6, 5), (101, 12), (1000, 30)] {
            let graph = Graph::new(n, degree, &[n as u8; 32]);
            for v in 0..n {
                let neighbours = graph.neighbours(v);
                assert_eq!(neighbours.len(), degree as usize, "{n} {degree}");
                assert!(neighbours.is_sorted_by(|a, b| a < b) && !neighbours.contains(&v));
                assert!(neighbours.iter().all(|&w| graph.neighbours(w).contains(&v)));
                for (slot, &w) in neighbours.iter().enumerate() {
                    assert_eq!(graph.slot(v, w), Some(slot));
                }
                assert_eq!(graph.slot(v, v), None);
            }
            assert_eq!(neighbours_of(1, n, degree, &[n as u8; 32]), graph.neighbours(1));
        }
    }

    #[test]
    fn each_pair_is_joined_equally_often() {
        // 2,000 seeds; a pair of 9 is joined with probability 4/8: 1,000 times, standard deviation 22.4.
        let mut joined = [[0u32; 9]; 9];
        for seed in 0..2000u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&seed.to_le_bytes());
            let graph = Graph::new(9, 4, &bytes);
            (0..9).for_each(|v| graph.neighbours(v).iter().for_each(|&w| joined[v as usize][w as usize] += 1));
        }
        for (v, row) in joined.iter().enumerate() {
            for (w, &times) in row.iter().enumerate().filter(|(w, _)| *w != v) {
                // Five standard deviations; the seeds are fixed.
                assert!(times.abs_diff(1000) < 112, "{v} {w}: {times}");
            }
        }
    }
}
