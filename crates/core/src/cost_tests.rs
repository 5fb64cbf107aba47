use super::*;

fn built_in(name: &str) -> ModelSpec {
    ModelSpec::built_in(name).unwrap()
}

#[test]
fn a_plain_step_of_ffnn_costs_what_a_hand_count_says() {
    // Linear 104 -> 50, ReLU 50, Linear 50 -> 2, loss of 2; 5352 parameters. The first layer needs no input gradient.
    let per_example = (2 * 2 * 104 * 50) + (2 * 50) + (3 * 2 * 50 * 2) + (2 * 2);
    let cost = plain_step(&built_in("ffnn"), 64).unwrap();
    assert_eq!(cost.flops, f64::from(64 * per_example + 2 * 5352));
    assert_eq!(cost.bytes, f64::from(4 * 64 * (104 + 1) + 2 * 4 * 5352));
}

#[test]
fn a_private_step_of_ffnn_adds_two_vector_norms_per_layer_and_the_noise() {
    let (plain, private) = (plain_step(&built_in("ffnn"), 64).unwrap(), private_step(&built_in("ffnn"), 64).unwrap());
    assert_eq!(private.flops - plain.flops, f64::from(64 * 2 * (104 + 50 + 50 + 2) + 2 * 5352));
    assert_eq!(private.bytes, plain.bytes);
}

#[test]
fn a_private_step_of_mnist_cnn_costs_what_a_hand_count_says() {
    // Conv 1->16 k8 on 28x28, s2 p3: 14x14 positions of 64 inputs. ReLU. MaxPool 2 s1: 13x13.
    // Conv 16->32 k4 s2: 5x5 positions of 256 inputs. ReLU. MaxPool 2 s1: 4x4. Linear 512->32, ReLU, Linear 32->10.
    let convolutions = 2 * (2 * 196 * 64 * 16) + 3 * (2 * 25 * 256 * 32);
    let linears = 3 * (2 * 512 * 32) + 3 * (2 * 32 * 10);
    let relus = 2 * (196 * 16 + 25 * 32 + 32);
    let pools = (4 + 1) * (169 * 16 + 16 * 32);
    let loss = 2 * 10;
    let privacy = 4 * 64 * 16 + 4 * 256 * 32 + 2 * (512 + 32) + 2 * (32 + 10);
    let cost = private_step(&built_in("mnist-cnn"), 256).unwrap();
    let per_example = convolutions + linears + relus + pools + loss + privacy;
    assert_eq!(cost.flops, f64::from(256 * per_example + 4 * 26_010));
    assert_eq!(cost.bytes, f64::from(4 * 256 * (784 + 1) + 8 * 26_010));
}

#[test]
fn the_floor_of_private_over_plain_is_near_one_for_all_but_logistic_regression() {
    // Matrix products alone, at 6Tpd in the plain step as the literature counts.
    let ratio = |name: &str| {
        let model = built_in(name);
        let rows = layers(&model, 1, Mode::Private).unwrap();
        let trained = model.layers.iter().zip(&rows[1..]);
        let products: Vec<_> = trained.filter(|(layer, _)| layer.params().len() > 1).map(|(_, row)| row).collect();
        let plain: f64 = products.iter().map(|row| 3.0 * row.weight_gradient).sum();
        1.0 + products.iter().map(|row| row.privacy).sum::<f64>() / plain
    };
    let expected = [("logreg", 1.337), ("ffnn", 1.013), ("mnist-cnn", 1.015), ("cifar10-cnn", 1.006), ("lstm", 1.003)];
    for (name, floor) in expected {
        assert!((ratio(name) - floor).abs() < 5e-4, "{name}: {}", ratio(name));
    }
}

#[test]
fn only_a_deep_convolution_with_few_positions_is_cheaper_by_gram_matrices() {
    let model = built_in("cifar10-cnn");
    let rows = layers(&model, 1, Mode::Private).unwrap();
    // 128 -> 256 on 4x4: T^2 (p + d) = 256 * (256 + 1152) < 4 * 256 * 1152.
    assert_eq!(rows[1 + 15].name, "layer 15 (conv2d)");
    assert_eq!(rows[1 + 15].privacy, f64::from(256 * (256 + 1152)));
    // 256 -> 10 on 4x4: 4 * 10 * 2304 < 256 * (10 + 2304).
    assert_eq!(rows[1 + 17].privacy, f64::from(4 * 10 * 2304));
}

#[test]
fn a_plain_step_touches_the_embedding_rows_that_occur_and_a_private_one_all() {
    let model = built_in("embedding");
    let bytes = |mode, examples| layers(&model, examples, mode).unwrap()[1].bytes;
    assert_eq!(bytes(Mode::NonPrivate, 2), f64::from(8 * 2 * 256 * 16));
    assert_eq!(bytes(Mode::NonPrivate, 64), f64::from(8 * 10_004 * 16));
    assert_eq!(bytes(Mode::Private, 2), f64::from(8 * 10_004 * 16));
    let row = &layers(&model, 3, Mode::Private).unwrap()[1];
    assert_eq!((row.forward, row.weight_gradient, row.privacy), (0.0, 3.0 * 256.0 * 16.0, 3.0 * 4.0 * 256.0 * 16.0));
}

#[test]
fn an_lstm_is_one_product_of_inputs_and_states_with_four_gates() {
    let rows = layers(&built_in("lstm"), 1, Mode::Private).unwrap();
    let product = f64::from(2 * 256 * 400 * 200);
    assert_eq!(rows[2].weight_gradient, product);
    assert_eq!(rows[2].forward, product + f64::from(256 * 6 * 100));
    assert_eq!(rows[2].privacy, f64::from(4 * 400 * 200));
}

#[test]
fn the_rows_add_up_to_the_step_and_an_empty_batch_costs_the_update_alone() {
    for name in ModelSpec::built_in_names() {
        let model = built_in(name);
        let rows = layers(&model, 7, Mode::Private).unwrap();
        assert_eq!(rows.len(), model.layers.len() + 2);
        assert_eq!(rows.iter().map(LayerCost::total).sum::<Cost>(), private_step(&model, 7).unwrap());
        let params: usize = model.params().iter().map(|param| param.shape.iter().product::<usize>()).sum();
        let empty = private_step(&model, 0).unwrap();
        assert_eq!(empty, Cost { flops: 4.0 * params as f64, bytes: 8.0 * params as f64 });
    }
}
