"""The anatomy tree, held against a walk up its parents, the model config, pydicom's code lists and the paper."""

import copy
import json
import pickle
from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import echocare_hf.anatomy.tree as tree_module
from echocare_hf.anatomy import AnatomyNode, AnatomyTree, UnknownAnatomyError

TREE = AnatomyTree.default()
IDS = list(TREE.ids)


def walk_up(parents, node):
    """The oracle of everything below: a node and its ancestors, by following parents."""
    nodes = {node}
    while parents[node] >= 0:
        node = parents[node]
        nodes.add(node)
    return nodes


@st.composite
def parent_lists(draw, min_size=1, max_size=12):
    """Any forest: each node's parent is -1 or stands before it."""
    size = draw(st.integers(min_size, max_size))
    return [draw(st.integers(-1, node - 1)) for node in range(size)]


def at(tree, *names):
    return [tree.index(name) for name in names]


# Shape


def test_the_default_tree_has_the_counts_of_the_paper():
    assert len(TREE) == 117
    assert TREE.level_names == ("region", "organ", "structure")
    assert [len(TREE.level_nodes(level)) for level in TREE.level_names] == [9, 52, 56]
    assert repr(TREE) == "AnatomyTree(117 nodes: 9 regions, 52 organs, 56 structures)"


def test_the_depth_of_each_node_is_the_level_that_the_file_states():
    stated = [node["level"] for node in json.loads(tree_module._TREE_FILE.read_text(encoding="utf-8"))]
    assert [node.level_name for node in TREE] == stated


@settings(deadline=None)
@given(parent_lists())
def test_ancestors_descendants_levels_and_children_match_a_walk_up(parents):
    tree = AnatomyTree.from_parents(parents)
    nodes = range(len(parents))
    above = [walk_up(parents, node) for node in nodes]
    assert tree.ancestor_matrix.tolist() == [[u in above[v] for u in nodes] for v in nodes]
    assert tree.descendant_matrix.tolist() == [[v in above[u] for u in nodes] for v in nodes]
    assert list(tree.levels) == [len(above[v]) - 1 for v in nodes]
    for v in nodes:
        assert set(tree.path_nodes(v)) == above[v]
        assert [tree.levels[u] for u in tree.path_nodes(v)] == list(range(len(above[v])))
        assert list(tree.children(v)) == [u for u in nodes if parents[u] == v]
    assert list(tree.roots) == list(tree.level_nodes(0)) == [v for v in nodes if parents[v] == -1]


def test_a_deep_tree_has_numbered_levels_below_structure():
    tree = AnatomyTree.from_parents([-1, 0, 1, 2, 3])
    assert tree.level_names == ("region", "organ", "structure", "level 3", "level 4")
    assert tree.level_nodes("level 4") == (4,)
    with pytest.raises(UnknownAnatomyError, match="unknown anatomy level 'cell': choose one of region, organ"):
        tree.level_nodes("cell")


def test_a_tree_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        TREE.ids = ()
    for matrix in (TREE.ancestor_matrix, TREE.descendant_matrix):
        with pytest.raises(ValueError, match="read-only"):
            matrix[0, 0] = False
    assert AnatomyTree.default() is TREE


def test_equality_follows_ids_names_and_parents():
    same = AnatomyTree.from_config(TREE.to_config())
    assert same == TREE and hash(same) == hash(TREE) and same is not TREE
    assert AnatomyTree.from_parents([-1, 0]) != AnatomyTree.from_parents([-1, -1])
    assert pickle.loads(pickle.dumps(TREE)) == copy.deepcopy(TREE) == TREE
    assert not pickle.loads(pickle.dumps(TREE)).ancestor_matrix.flags.writeable


@pytest.mark.parametrize(
    ("parents", "names", "ids", "message"),
    [
        ([0], None, None, r"position 0\) names parent 0: a parent stands before its children"),
        ([-1, 2, -1], None, None, "names parent 2"),
        ([-1, -2], None, None, "names parent -2"),
        ([-1, 0], ["one"], None, "1 ids, 1 names and 2 parents"),
        ([-1, 0], ["same", "same"], None, "must be unique, 'same' repeats"),
        ([-1, 0], ["Heart", "Heart"], ["a", "a"], "must be unique, 'a' repeats"),
    ],
)
def test_what_is_no_tree_is_refused(parents, names, ids, message):
    with pytest.raises(ValueError, match=message):
        AnatomyTree.from_parents(parents, names, ids)


# Model config


def test_the_model_config_stores_the_default_tree():
    from echocare_hf.model.configuration_echocare import EchoCareConfig

    config = EchoCareConfig()
    assert config.anatomy_tree == TREE.to_config()
    assert AnatomyTree.from_config(config) == TREE


@settings(deadline=None)
@given(parent_lists(min_size=0))
def test_a_tree_survives_the_json_of_a_config(parents):
    tree = AnatomyTree.from_parents(parents)
    stored = json.loads(json.dumps(tree.to_config()))
    assert AnatomyTree.from_config(stored) == tree
    assert AnatomyTree.from_config({"model_type": "echocare", "anatomy_tree": stored}) == tree
    assert AnatomyTree.from_config(SimpleNamespace(anatomy_tree=stored)) == tree


@pytest.mark.parametrize("config", [None, {}, {"ids": [], "names": []}, SimpleNamespace(anatomy_tree=None)])
def test_a_config_without_a_tree_is_refused(config):
    with pytest.raises(ValueError, match="holds no anatomy tree"):
        AnatomyTree.from_config(config)


def test_an_older_tree_finds_its_codes_and_aliases_by_id():
    old = AnatomyTree.from_parents([-1, 0, 0], names=["Chest", "Cor", "Ribs"], ids=["thorax", "heart", "ribs"])
    assert old.code("Cor") == ("SCT", "80891009", "Heart")
    assert at(old, "cardiac", 80891009, "rib") == [1, 1, 2]
    assert old.code("ribs") is None and old.aliases("ribs") == ()
    with pytest.raises(UnknownAnatomyError):
        old.index("A4C")  # a node of the package's tree only


# Finding a node


def test_every_node_is_found_by_position_id_name_path_and_itself():
    for node in TREE:
        assert isinstance(node, AnatomyNode)
        for key in (node.index, np.int64(node.index), node.id, node.name, TREE.path(node.index), node):
            assert TREE.index(key) == node.index, key
        assert TREE[node.id] == node


def test_every_node_is_found_by_each_of_its_aliases_in_other_spellings():
    for node in TREE:
        for alias in node.aliases:
            for spelling in (alias, alias.upper(), f"  {alias.replace(' ', '_')} ", alias.replace("-", " ")):
                assert TREE.index(spelling) == node.index, spelling


def test_no_text_names_two_nodes_and_no_alias_repeats_another_text_of_its_node():
    owner: dict[str, str] = {}
    for node in TREE:
        own_texts = {tree_module._key(text) for text in (node.id, node.name, node.name.split("(")[0])}
        for alias in node.aliases:
            key = tree_module._key(alias)
            assert key and key not in own_texts, f"{node.id}: alias {alias!r} adds nothing"
            own_texts.add(key)
        for key in own_texts:
            assert owner.setdefault(key, node.id) == node.id, f"{key!r} names {owner[key]} and {node.id}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Heart", "heart"),
        ("HEARTS", "heart"),
        ("A4C", "heart_a4c"),
        ("apical 4 chamber", "heart_a4c"),
        ("Apical four-chamber views", "heart_a4c"),
        ("4CH", "heart_a4c"),
        ("PLAX", "heart_plax"),
        ("Parasternal long axis view", "heart_plax"),
        ("ivc", "inferior_vena_cava"),
        ("mammary gland", "breast"),
        ("Foetal Head", "fetal_brain"),
        ("ophthalmic", "eye"),
        ("womb", "uterus"),
        ("GB", "gallbladder"),
        ("gall bladder", "gallbladder"),
        ("Kidneys", "kidney"),
        ("femoral arteries", "femoral_artery"),
        ("testes", "testis"),
        ("Morison’s pouch", "hepatorenal_recess"),
        ("Head and Neck", "head_neck"),
        ("Maternal cervix", "cervix_uteri"),  # as Fetal_Planes_DB has it
        ("Trans-cerebellum", "fetal_transcerebellar_plane"),
        ("Thorax->Heart", "heart"),
        ("Thorax→Heart→Apical two-chamber", "heart_a2c"),  # as the paper writes it (section 2.2)
        ("Thorax > A4C", "heart_a4c"),
    ],
)
def test_text_is_understood_in_the_spellings_of_the_field(text, expected):
    assert TREE[text].id == expected
    assert text in TREE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hart", r"unknown anatomy label 'hart': did you mean Heart \(heart\)"),
        ("aorta", "Abdominal aorta .* or Thoracic aorta"),
        ("nerve", "did you mean .*Median nerve"),
        ("zzzz", "unknown anatomy label 'zzzz': none of the tree's 117 nodes comes close"),
        ("Abdomen -> Heart", r"unknown anatomy label 'Abdomen -> Heart': did you mean Heart \(heart\)"),
        (" ", "empty anatomy label"),
        ("->", "unknown anatomy label"),
        ("of the", "unknown anatomy label"),
        (117, "unknown anatomy node 117: the tree has nodes 0 to 116"),
        (-1, "unknown anatomy node -1"),
    ],
)
def test_an_unknown_label_is_one_line_with_the_closest_names(text, message):
    with pytest.raises(UnknownAnatomyError, match=message) as error:
        TREE.index(text)
    assert "\n" not in str(error.value)
    assert text not in TREE


@settings(deadline=None, max_examples=50)  # an unknown text costs a search for close names
@given(st.text(max_size=40))
def test_any_text_is_a_node_or_an_unknown_label(text):
    try:
        assert 0 <= TREE.index(text) < len(TREE)
    except UnknownAnatomyError as error:
        assert str(error)


@pytest.mark.parametrize("value", [True, 1.5, None, ["heart"]])
def test_what_is_neither_text_nor_number_is_a_type_error(value):
    with pytest.raises(TypeError):
        TREE.index(value)


def test_a_name_that_two_nodes_share_wants_an_id_or_a_path():
    tree = AnatomyTree.from_parents(
        [-1, 0, -1, 2], names=["Left", "Wall", "Right", "Wall"], ids=["l", "lw", "r", "rw"]
    )
    with pytest.raises(UnknownAnatomyError, match="'wall' names several nodes, use an id: lw, rw"):
        tree.index("wall")
    assert at(tree, "lw", "Right -> Wall") == [1, 3]


# Codes


def test_every_coded_node_is_found_by_its_code():
    coded = [node for node in TREE if node.code is not None]
    assert len(coded) == 87
    for node in coded:
        scheme, value, meaning = node.code
        assert scheme in ("SCT", "SCT*", "DCM") and meaning
        assert TREE.by_code(value, fetus=scheme == "SCT*") == node.index
        assert TREE.index(f"{scheme}:{value}") == node.index
        assert node.index in TREE.find_code(value)


def test_a_code_that_adult_and_fetus_share_is_the_adult_one_unless_told():
    heart, fetal_heart = at(TREE, "heart", "fetal_heart")
    assert TREE.find_code(80891009) == TREE.find_code("SCT:80891009") == [heart, fetal_heart]
    assert TREE.find_code("SCT*:80891009") == [fetal_heart]
    assert at(TREE, 80891009, "80891009", "SCT:80891009", "snomed ct:80891009") == [heart] * 4
    assert TREE.index("SCT*:80891009") == TREE.by_code(80891009, fetus=True) == fetal_heart


def test_an_adult_body_site_never_becomes_a_fetal_node():
    with pytest.raises(UnknownAnatomyError, match=r"body site of the fetus only: Fetal femur \(fetal_femur\)"):
        TREE.index("71341001")
    with pytest.raises(UnknownAnatomyError, match="outside the fetus in this tree: Kidney"):
        TREE.by_code(64033007, fetus=True)
    assert TREE.by_code("71341001", fetus=True) == TREE.index("fetal_femur")
    assert TREE.by_code("78067005") == TREE.by_code("78067005", fetus=True) == TREE.index("placenta")


def test_unknown_codes_are_named():
    with pytest.raises(UnknownAnatomyError, match="no anatomy node has the code 12345678"):
        TREE.index(12345678)
    with pytest.raises(UnknownAnatomyError, match="no anatomy node has the code SCT:121026"):
        TREE.by_code("SCT:121026")  # the fetus, but in another scheme
    with pytest.raises(UnknownAnatomyError, match="'heart' is no SNOMED CT or DICOM code"):
        TREE.find_code("heart")
    assert TREE.find_code(12345678) == []


def test_the_codes_and_meanings_are_those_of_dicom():
    """Oracle: the concepts of DICOM PS3.16 that pydicom carries."""
    concepts = pytest.importorskip("pydicom.sr._concepts_dict").concepts
    known: dict[tuple[str, str], set[str]] = {}
    for scheme in ("SCT", "DCM"):
        for entries in concepts[scheme].values():
            for value, (meaning, _) in entries.items():
                known.setdefault((scheme, value), set()).add(meaning)
    for node in TREE:
        if node.code is not None:
            assert node.code.meaning in known[node.code.scheme.rstrip("*"), node.code.value], node.id


def test_the_meaning_of_a_code_is_understood_as_a_name_of_its_node():
    for node in TREE:
        if node.code is not None and node.code.scheme != "SCT*":
            assert TREE.index(node.code.meaning) == node.index, node.code


# Labels


def test_heart_is_present_with_its_region_leaves_its_views_open_and_excludes_the_rest():
    labels = TREE.labels("Heart")
    assert labels.shape == (117,) and labels.dtype == np.int8
    heart, thorax, liver, breast = at(TREE, "heart", "thorax", "liver", "breast")
    assert set(np.flatnonzero(labels == 1)) == {heart, thorax}
    assert set(np.flatnonzero(labels == -1)) == set(TREE.children("heart"))
    assert labels[liver] == labels[breast] == 0


def test_labels_of_a_region_a_leaf_and_nothing():
    thorax = TREE.labels("Thorax")
    below = TREE.descendant_matrix[TREE.index("thorax")]
    assert set(np.flatnonzero(thorax == -1)) == set(np.flatnonzero(below)) - {TREE.index("thorax")}
    assert (thorax[~below] == 0).all()
    leaf = TREE.labels("A4C")
    assert set(np.flatnonzero(leaf)) == set(at(TREE, "thorax", "heart", "heart_a4c")) and (leaf >= 0).all()
    for nothing in (None, "", "  ", []):
        assert (TREE.labels(nothing) == -1).all()


def test_labels_of_several_nodes():
    both = TREE.labels(["liver", "right kidney"])
    assert set(np.flatnonzero(both == 1)) == set(at(TREE, "abdomen", "liver", "kidney", "right_kidney"))
    assert set(np.flatnonzero(both == -1)) == set(TREE.children("liver"))
    assert (TREE.labels(["Heart", "A4C", "cardiac"]) == TREE.labels("A4C")).all()  # the general label adds nothing


def test_absent_nodes_and_labels_that_exclude_nothing():
    labels = TREE.labels("Heart", absent="A4C")
    assert labels[TREE.index("A4C")] == 0 and labels[TREE.index("A2C")] == -1
    labels = TREE.labels("Heart", absent=["fetus"], exclusive=False)
    assert set(np.flatnonzero(labels == 1)) == set(at(TREE, "thorax", "heart"))
    assert set(np.flatnonzero(labels == 0)) == set(np.flatnonzero(TREE.descendant_matrix[TREE.index("fetus")]))
    assert set(np.flatnonzero(TREE.labels(None, absent="skin") == 0)) == {TREE.index("skin")}
    with pytest.raises(ValueError, match="'Thorax -> Heart' is both present and absent"):
        TREE.labels("Heart", absent="cardiac")
    with pytest.raises(ValueError, match="Apical four-chamber view' is present, but 'Heart' is absent"):
        TREE.labels("A4C", absent="Heart")


@settings(deadline=None)
@given(st.data(), parent_lists())
def test_labels_match_the_definition_node_by_node(data, parents):
    tree = AnatomyTree.from_parents(parents)
    nodes = range(len(parents))
    named = data.draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=4))
    shown = set().union(*(walk_up(parents, node) for node in named))
    deepest = {v for v in named if not any(v in walk_up(parents, u) and u != v for u in named)}
    expected = [1 if v in shown else -1 if walk_up(parents, v) & deepest else 0 for v in nodes]
    assert tree.labels(named).tolist() == expected
    assert tree.labels(named, exclusive=False).tolist() == [1 if v in shown else -1 for v in nodes]


@settings(deadline=None)
@given(st.data(), parent_lists())
def test_closure_matches_the_rule_node_by_node(data, parents):
    """Present goes up, absent goes down (paper section 4.1.2); a present node below an absent one is an error."""
    tree = AnatomyTree.from_parents(parents)
    nodes = range(len(parents))
    labels = data.draw(st.lists(st.sampled_from([-1, 0, 1]), min_size=len(nodes), max_size=len(nodes)))
    above = [walk_up(parents, node) for node in nodes]
    if any(labels[v] == 1 and labels[u] == 0 for v in nodes for u in above[v]):
        with pytest.raises(ValueError, match=r"'.*node_\d+' is present, but 'node_\d+' is absent"):
            tree.closure(labels)
        return
    present = {u for v in nodes if labels[v] == 1 for u in above[v]}
    absent = {v for v in nodes if any(labels[u] == 0 for u in above[v])}
    closed = tree.closure(labels)
    assert closed.tolist() == [1 if v in present else 0 if v in absent else -1 for v in nodes]
    assert (tree.closure(closed) == closed).all()
    assert tree.closure([labels, labels]).tolist() == [closed.tolist()] * 2


def test_closure_names_the_contradiction_within_a_batch_and_refuses_other_input():
    labels = np.full((2, 3, 117), -1)
    labels[1, 2, at(TREE, "heart_a4c")] = 1
    labels[1, 2, at(TREE, "thorax")] = 0
    with pytest.raises(ValueError, match="'Thorax -> Heart -> Apical four-chamber view' is present, but 'Thorax'"):
        TREE.closure(labels)
    with pytest.raises(ValueError, match=r"shape \(..., 117\)"):
        TREE.closure([1, 0])
    with pytest.raises(ValueError, match="labels must be 1"):
        TREE.closure(np.full(117, 0.5))


# Paths


def test_paths_read_as_in_the_paper():
    assert TREE.path("A4C") == "Thorax -> Heart -> Apical four-chamber view"
    assert TREE.path("thorax") == "Thorax"
    assert TREE.path_nodes("A4C") == at(TREE, "thorax", "heart", "heart_a4c")


def test_the_best_path_is_greedy_coherent_and_ends_below_the_threshold():
    tree = AnatomyTree.from_parents([-1, 0, 0, -1, 3, 4])
    assert tree.best_path([0.8, 0.3, 0.9, 0.6, 1.0, 1.0]) == [
        (0, 0.8),
        (2, 0.8),
    ]  # an organ is no likelier than its region
    assert tree.best_path([0.8, 0.3, 0.4, 0.6, 1.0, 1.0]) == [(0, 0.8)]
    assert tree.best_path([0.8, 0.3, 0.4, 0.6, 1.0, 1.0], threshold=0.4) == [(0, 0.8), (2, 0.4)]
    assert tree.best_path([0.4] * 6) == []
    assert AnatomyTree.from_parents([]).best_path([]) == []
    with pytest.raises(ValueError, match=r"shape \(6,\)"):
        tree.best_path([0.5])
    with pytest.raises(ValueError, match="NaN"):
        tree.best_path([float("nan")] * 6)


@settings(deadline=None)
@given(st.sampled_from(IDS))
def test_the_labels_of_a_node_lead_back_to_it(identifier):
    assert [node for node, _ in TREE.best_path(TREE.labels(identifier))] == TREE.path_nodes(identifier)


def test_the_printed_tree_has_a_line_a_node_indented_by_level():
    lines = TREE.format().splitlines()
    assert len(lines) == 117
    for node, line in zip(TREE, lines, strict=True):  # the file is in depth-first order
        code = f" {node.code.scheme} {node.code.value}" if node.code else ""
        assert line == "  " * node.level + f"{node.name} [{node.id}]{code}"
    assert TREE.format("biliary tract", codes=False).splitlines() == [
        "Biliary tract [biliary_tract]",
        "  Gallbladder [gallbladder]",
        "  Common bile duct [common_bile_duct]",
    ]
