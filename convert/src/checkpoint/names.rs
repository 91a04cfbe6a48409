//! Removes prefixes that training programs add to tensor names.

/// Prefixes that module wrappers add to every name: data parallelism, compilation, adapters.
const AROUND: [&str; 6] = [
    "module.",
    "base_model.",
    "_orig_mod.",
    "_forward_module.",
    "_fsdp_wrapped_module.",
    "_checkpoint_wrapped_module.",
];

/// Parts that some wrappers insert anywhere in a name.
const WITHIN: [&str; 4] = [
    "._orig_mod.",
    "._fsdp_wrapped_module.",
    "._checkpoint_wrapped_module.",
    ".base_layer.",
];

/// Prefixes of the model's own names. A `model.` before one of these belongs to a wrapper; the model's own
/// `model.` comes before `layers`, `tok_embeddings` and `norm`.
const PARTS: [&str; 5] = ["model.", "output.", "vit.", "vision_proj.", "plora_"];

/// Continuations of the model's own `model.`, which a wrapper can replace.
const INNER: [&str; 3] = ["layers.", "tok_embeddings.", "norm."];

/// The name that a tensor has in a published checkpoint.
pub(super) fn unwrapped(name: &str) -> String {
    let name = WITHIN
        .iter()
        .fold(name.to_owned(), |name, wrapper| name.replace(wrapper, "."));
    let mut rest = &name[..];
    while let Some(inner) = strip_wrapper(rest) {
        rest = inner;
    }
    let lost_model = rest != name && INNER.iter().any(|inner| rest.starts_with(inner));
    if lost_model {
        format!("model.{rest}")
    } else {
        rest.to_owned()
    }
}

fn strip_wrapper(name: &str) -> Option<&str> {
    if let Some(inner) = AROUND.iter().find_map(|w| name.strip_prefix(w)) {
        return Some(inner);
    }
    let inner = name.strip_prefix("model.")?;
    let mut starts = PARTS.iter().chain(&AROUND);
    starts.any(|s| inner.starts_with(s)).then_some(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_removed_in_any_order_and_number() {
        for plain in [
            "model.tok_embeddings.weight",
            "model.layers.1.attention.wo.Plora_A.weight",
            "model.norm.weight",
            "output.weight",
            "vit.vision_tower.vision_model.embeddings.class_embedding",
            "vision_proj.0.bias",
            "plora_glb_GN",
        ] {
            assert_eq!(unwrapped(plain), plain);
            for wrapper in [
                "module.",
                "base_model.model.",
                "_orig_mod.",
                "model.",
                "module.module.",
                "module.base_model.model.",
                "base_model.model.module.",
                "model.module.",
                "_orig_mod.module.model.",
            ] {
                assert_eq!(unwrapped(&format!("{wrapper}{plain}")), plain, "{wrapper}");
            }
        }
        for between in ["model.module.", "model._orig_mod.", "module.model.module."] {
            let name = format!("{between}layers.0.attention.wo.weight");
            assert_eq!(unwrapped(&name), "model.layers.0.attention.wo.weight");
        }
        assert_eq!(
            unwrapped(
                "model._orig_mod.layers.0._fsdp_wrapped_module.attention.wo.base_layer.weight"
            ),
            "model.layers.0.attention.wo.weight"
        );
    }
}
