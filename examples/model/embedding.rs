//! Texts as vectors: hashed counts of words and of their letter triples.

/// The length of a vector unless the caller says otherwise.
pub(crate) const DIMENSIONS: usize = 256;

/// A vector of length 1. Texts that share words, or parts of words, point in similar directions.
pub(crate) fn embed(text: &str, dimensions: usize) -> Vec<f32> {
    let mut vector = vec![0.0_f32; dimensions];
    let mut add = |feature: &str| {
        // No signs, as other hashed embeddings have them: in few dimensions they would cancel to zero.
        vector[(fnv1a(feature.as_bytes()) % dimensions as u64) as usize] += 1.0;
    };
    for word in text.to_lowercase().split_whitespace() {
        add(word);
        let padded: Vec<char> = format!("<{word}>").chars().collect();
        for triple in padded.windows(3) {
            add(&triple.iter().collect::<String>());
        }
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
    vector
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn similarity(a: &str, b: &str) -> f32 {
        let (a, b) = (embed(a, DIMENSIONS), embed(b, DIMENSIONS));
        a.iter().zip(&b).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn a_vector_has_length_one() {
        for text in ["the queue outside the bakery", "a river", "two", "x"] {
            for dimensions in [1, 2, 3, 64, DIMENSIONS] {
                let vector = embed(text, dimensions);
                let length: f32 = vector.iter().map(|x| x * x).sum();
                assert_eq!(vector.len(), dimensions);
                assert!(
                    (length - 1.0).abs() < 1e-5,
                    "{text} in {dimensions}: {length}"
                );
            }
        }
    }

    #[test]
    fn texts_that_share_words_are_closer() {
        let near = similarity("a river in the hills", "two rivers and a hill");
        let far = similarity("a river in the hills", "post office stamps");
        assert!(near > far + 0.2, "{near} against {far}");
    }
}
