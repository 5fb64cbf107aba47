//! Variants of a strategy that are, under conditions, the same program as another one: they are measured once.

use std::collections::BTreeMap;

use dpsgd_core::{Mode, ModelSpec};
use serde::Deserialize;

use super::{Variant, unknown};

/// Kinds of layers, as in a model file.
const LAYER_KINDS: [&str; 10] = [
    "linear",
    "conv2d",
    "max_pool2d",
    "avg_pool2d",
    "relu",
    "flatten",
    "global_avg_pool2d",
    "embedding",
    "lstm",
    "mean_over_time",
];

/// One item of a variant's `same_as`: where all of its conditions hold, the variant is the same program as `variant`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SameAs {
    /// Another variant of the strategy.
    pub variant: String,
    /// In these modes; any unless given.
    pub modes: Option<Vec<Mode>>,
    /// On models that have a layer of one of these kinds; any unless given.
    pub with_layers: Option<Vec<String>>,
    /// On models that have no layer of these kinds; any unless given.
    pub without_layers: Option<Vec<String>>,
    /// On processors that have this feature, such as `avx512f`; any unless given.
    pub with_cpu_feature: Option<String>,
    /// On processors that lack this feature; any unless given.
    pub without_cpu_feature: Option<String>,
}

impl SameAs {
    /// Whether all conditions hold.
    pub(super) fn holds(&self, model: &ModelSpec, mode: Mode, cpu_features: &[String]) -> bool {
        let has = |kinds: &Vec<String>| model.layers.iter().any(|layer| kinds.iter().any(|kind| kind == layer.kind()));
        self.modes.as_ref().is_none_or(|modes| modes.contains(&mode))
            && self.with_layers.as_ref().is_none_or(has)
            && !self.without_layers.as_ref().is_some_and(has)
            && self.with_cpu_feature.as_ref().is_none_or(|feature| cpu_features.contains(feature))
            && !self.without_cpu_feature.as_ref().is_some_and(|feature| cpu_features.contains(feature))
    }

    fn validate(&self, of: &Variant, all: &[Variant]) -> Result<(), String> {
        let name = &self.variant;
        if !all.iter().any(|variant| variant.name == *name) {
            let names: Vec<&str> =
                all.iter().filter(|variant| variant.name != of.name).map(|variant| variant.name.as_str()).collect();
            return Err(unknown("variant in same_as", name, &names));
        }
        if *name == of.name {
            return Err(format!("same_as = `{name}`: that is the variant itself; name another"));
        }
        if [&self.with_cpu_feature, &self.without_cpu_feature].iter().any(|f| f.as_deref() == Some("")) {
            return Err(format!("same_as = `{name}`: a processor feature is empty; name one such as `avx512f`"));
        }
        let conditions = [
            self.modes.as_ref().map(|modes| !modes.is_empty()),
            self.with_layers.as_ref().map(|kinds| !kinds.is_empty()),
            self.without_layers.as_ref().map(|kinds| !kinds.is_empty()),
            self.with_cpu_feature.as_ref().map(|_| true),
            self.without_cpu_feature.as_ref().map(|_| true),
        ];
        if conditions.iter().all(Option::is_none) || conditions.contains(&Some(false)) {
            let keys = "modes, with_layers, without_layers, with_cpu_feature, without_cpu_feature";
            return Err(format!("same_as = `{name}`: no condition, or an empty one; give at least one of {keys}"));
        }
        let mut kinds = self.with_layers.iter().chain(&self.without_layers).flatten();
        match kinds.find(|kind| !LAYER_KINDS.contains(&kind.as_str())) {
            Some(kind) => Err(unknown(&format!("layer in same_as = `{name}`"), kind, &LAYER_KINDS)),
            None => Ok(()),
        }
    }
}

/// The `same_as` of every variant of a strategy, by the variant's name.
pub(super) type Relations = BTreeMap<String, Vec<SameAs>>;

/// The variant at which one arrives from `variant` by what holds; as there are no cycles, there is one.
pub(super) fn original<'r>(relations: &'r Relations, variant: &'r str, holds: impl Fn(&SameAs) -> bool) -> &'r str {
    let mut name = variant;
    while let Some(same) = relations.get(name).into_iter().flatten().find(|same| holds(same)) {
        name = &same.variant;
    }
    name
}

/// Checks the `same_as` of all variants of a strategy: each by itself, and that none leads back to where it began.
pub(super) fn validate(variants: &[Variant]) -> Result<(), String> {
    for variant in variants {
        for same in &variant.same_as {
            same.validate(variant, variants).map_err(|reason| format!("variant `{}`: {reason}", variant.name))?;
        }
    }
    for variant in variants {
        let mut reached: Vec<&str> = vec![&variant.name];
        let mut next = 0;
        while let Some(name) = reached.get(next).copied() {
            let of_name = variants.iter().filter(|other| other.name == name).flat_map(|other| &other.same_as);
            for same in of_name {
                if same.variant == variant.name {
                    return Err(format!(
                        "variant `{name}`: same_as = `{}`: that one is the same as this",
                        same.variant
                    ));
                }
                if !reached.contains(&same.variant.as_str()) {
                    reached.push(&same.variant);
                }
            }
            next += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Contender, Registry};
    use super::*;

    const VARIANTS: &str = r#"
        [[strategy]]
        name = "s"
        description = "for this test"
        start = ["true"]
        empty_batch = true
        non_finite = false

        [[strategy.variants]]
        name = "one"
        description = "the first"

        [[strategy.variants]]
        name = "other"
        description = "the second"
    "#;

    fn read(more: &str) -> Result<Registry, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{VARIANTS}{more}\n")).unwrap();
        Registry::read(file.path()).map_err(|error| error.reason)
    }

    fn second(more: &str) -> Contender {
        read(more).unwrap().contenders("s:other").unwrap().swap_remove(0)
    }

    fn model(layers: &str) -> ModelSpec {
        toml::from_str(&format!(
            "name = \"m\"\ninput = {{ image = [1, 4, 4] }}\nloss = \"cross_entropy\"\nlayers = [{layers}]"
        ))
        .unwrap()
    }

    fn dense() -> ModelSpec {
        model(r#"{ kind = "flatten" }, { kind = "linear", in_features = 16, out_features = 2 }"#)
    }

    fn pooled() -> ModelSpec {
        let pool = r#"{ kind = "max_pool2d", kernel_size = 2 }, { kind = "flatten" }"#;
        model(&format!(r#"{pool}, {{ kind = "linear", in_features = 4, out_features = 2 }}"#))
    }

    #[test]
    fn a_variant_is_the_same_program_where_all_conditions_of_one_item_hold() {
        let other = second(
            r#"same_as = [
                { variant = "one", modes = ["non_private"], without_cpu_feature = "avx512f" },
                { variant = "one", without_layers = ["conv2d", "max_pool2d"], with_cpu_feature = "avx2" },
            ]"#,
        );
        let same = |model: &ModelSpec, mode, features: &[&str]| {
            let features: Vec<String> = features.iter().map(|feature| feature.to_string()).collect();
            other.same_program_as(model, mode, &features)
        };
        let one = Some("one".to_string());
        assert_eq!(same(&pooled(), Mode::NonPrivate, &[]), one);
        assert_eq!(same(&pooled(), Mode::NonPrivate, &["avx512f"]), None, "of the first item one condition fails");
        assert_eq!(same(&pooled(), Mode::Private, &["avx2"]), None, "a pool is a layer of the second item");
        assert_eq!(same(&dense(), Mode::Private, &["avx2"]), one);
        assert_eq!(same(&dense(), Mode::Private, &[]), None);
        assert_eq!(same(&dense(), Mode::NonPrivate, &["avx2", "avx512f"]), one, "the second item is enough");
        let with_a_pool = second(r#"same_as = [{ variant = "one", with_layers = ["conv2d", "max_pool2d"] }]"#);
        assert_eq!(with_a_pool.same_program_as(&pooled(), Mode::Private, &[]), one);
        assert_eq!(with_a_pool.same_program_as(&dense(), Mode::Private, &[]), None);
    }

    #[test]
    fn a_variant_s_own_modes_replace_the_strategy_s() {
        let registry = read("modes = [\"private\"]").unwrap();
        let modes: Vec<Vec<Mode>> =
            registry.contenders("s").unwrap().iter().map(|contender| contender.modes().to_vec()).collect();
        assert_eq!(modes, [vec![Mode::Private, Mode::NonPrivate], vec![Mode::Private]]);
        assert!(read("modes = []").unwrap_err().contains("modes = []"));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_is_allowed() {
        let modes = r#"modes = ["private"]"#;
        for (items, named) in [
            (format!(r#"{{ variant = "on", {modes} }}"#), "did you mean `one`?"),
            (format!(r#"{{ variant = "other", {modes} }}"#), "itself"),
            (r#"{ variant = "one" }"#.into(), "at least one of modes, with_layers"),
            (r#"{ variant = "one", modes = [] }"#.into(), "at least one of"),
            (r#"{ variant = "one", without_layers = ["conv"] }"#.into(), "did you mean `conv2d`?"),
            (r#"{ variant = "one", with_cpu_feature = "" }"#.into(), "avx512f"),
            (format!(r#"{{ variant = "one", layers = [], {modes} }}"#), "unknown field `layers`"),
        ] {
            let error = read(&format!("same_as = [{items}]")).unwrap_err();
            assert!(error.contains(named), "{items}: {error}");
        }
    }

    #[test]
    fn a_chain_is_followed_to_its_end_and_a_cycle_is_refused() {
        let third = |name: &str| {
            format!(
                "same_as = [{{ variant = \"third\", modes = [\"private\"] }}]\n[[strategy.variants]]\nname = \"third\"\n\
                 description = \"the third\"\nsame_as = [{{ variant = \"{name}\", modes = [\"private\"] }}]"
            )
        };
        let other = second(&third("one"));
        assert_eq!(other.same_program_as(&dense(), Mode::Private, &[]), Some("one".into()));
        assert_eq!(other.same_program_as(&dense(), Mode::NonPrivate, &[]), None);
        let error = read(&third("other")).unwrap_err();
        assert!(error.contains("is the same as this"), "{error}");
    }

    #[test]
    fn every_kind_of_layer_has_its_name_here() {
        // serde lists them all in its error.
        let error = serde_json::from_str::<dpsgd_core::Layer>(r#"{"kind": "none"}"#).unwrap_err().to_string();
        let named: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert_eq!(named, LAYER_KINDS);
    }

    #[test]
    fn in_the_registry_of_this_project_what_coincides_is_declared() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench-configs/strategies.toml");
        let registry = Registry::read(&path).unwrap();
        let same = |name: &str, model: &ModelSpec, mode, features: &[String]| {
            registry.contenders(name).unwrap()[0].same_program_as(model, mode, features)
        };
        let avx2 = ["avx2".to_string(), "fma".to_string()];
        let avx512: Vec<String> = avx2.iter().cloned().chain(["avx512f".to_string(), "avx512dq".to_string()]).collect();
        let jax = Some("jit+vmap".to_string());
        assert_eq!(same("jax:jit+vmap+reweight", &pooled(), Mode::NonPrivate, &avx2), jax);
        assert_eq!(same("jax:jit+vmap+reweight", &pooled(), Mode::Private, &avx2), None);
        assert_eq!(same("jax:jit+vmap+im2col", &dense(), Mode::Private, &avx2), jax);
        assert_eq!(same("jax:jit+vmap+im2col", &pooled(), Mode::Private, &avx2), None);
        let best = Some("best".to_string());
        assert_eq!(same("fused:avx2", &dense(), Mode::Private, &avx2), best);
        assert_eq!(same("fused:avx2", &dense(), Mode::Private, &avx512), None);
        assert_eq!(same("fused:avx512", &dense(), Mode::Private, &avx512), best);
        assert_eq!(same("fused:avx512", &dense(), Mode::Private, &avx2), None, "there it is not available");
        assert_eq!(same("fused:kept", &dense(), Mode::Private, &avx2), best);
    }
}
