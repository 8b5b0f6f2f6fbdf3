"""Rules about what our code may say, read from its syntax tree."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "densedpo"
MODULES = sorted(PACKAGE.rglob("*.py"))
FAMILIES = re.compile(r"wan|cogvideox?|hunyuan\w*|ltx\w*|animatediff|mochi", re.IGNORECASE)
OBJECTIVES = re.compile(r"dpo|dense_dpo\w*")
FROM_TORCH = {"randn", "rand", "randint", "randperm", "normal", "randn_like", "rand_like", "bernoulli", "multinomial"}


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _dotted(node: ast.AST) -> str:
    match node:
        case ast.Attribute(value=value, attr=attr):
            return f"{_dotted(value)}.{attr}"
        case ast.Name(id=name):
            return name
    return ""


def _identifiers(tree: ast.Module) -> Iterator[str]:
    """Every name that the code gives or uses, and every piece of text that is not a docstring."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.alias(name=name):
                yield name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                yield text


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_settings_are_not_read_from_the_environment(path: Path) -> None:
    used = {_dotted(node) for node in ast.walk(_tree(path)) if isinstance(node, ast.Attribute)}
    assert not used & {"os.environ", "os.getenv", "os.putenv"}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_randomness_is_an_argument(path: Path) -> None:
    """No global seeding, and no draw without a generator, outside the one file that may."""
    if _name(path) == "core/seeds.py":
        return
    for node in ast.walk(_tree(path)):
        if not isinstance(node, ast.Call):
            continue
        called = _dotted(node.func)
        assert not called.endswith("manual_seed"), f"line {node.lineno}: {called}"
        assert not called.startswith(("np.random.", "numpy.random.")) or called.rsplit(".", 1)[1][0].isupper(), (
            f"line {node.lineno}: {called} draws from, or seeds, outside densedpo.core.seeds"
        )
        if called.startswith("torch.") and called.split(".")[-1] in FROM_TORCH:
            assert "generator" in {keyword.arg for keyword in node.keywords}, f"line {node.lineno}: {called}"
        assert called.split(".")[0] != "random", f"line {node.lineno}: {called}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_errors_are_caught_by_name(path: Path) -> None:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: bare except"
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            assert not {_dotted(name) for name in caught} & {"Exception", "BaseException"}, f"line {node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_attributes_are_not_probed(path: Path) -> None:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call):
            assert _dotted(node.func) not in {"hasattr", "getattr"}, f"line {node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_model_families_are_named_in_adapters_only(path: Path) -> None:
    if _name(path).startswith("adapters/"):
        named = {word for name in _identifiers(_tree(path)) for word in name.split() if OBJECTIVES.fullmatch(word)}
        assert not named, "an adapter knows no objective"
        return
    for name in _identifiers(_tree(path)):
        words = re.split(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z])", name)
        assert not [word for word in words if FAMILIES.fullmatch(word)], name


@pytest.mark.parametrize("path", sorted((PACKAGE / "learn" / "objectives").glob("*.py")), ids=_name)
def test_objectives_import_torch_and_core_only(path: Path) -> None:
    for node in ast.walk(_tree(path)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            ours = name.startswith(("densedpo.core", "densedpo.learn.objectives"))
            root = name.split(".")[0]
            assert ours or root in {"torch", "jaxtyping"} or root in sys.stdlib_module_names, name


@pytest.mark.parametrize(
    "path", [path for path in MODULES if _name(path).startswith(("core/", "learn/objectives/"))], ids=_name
)
def test_tensors_in_core_and_objectives_say_their_shape(path: Path) -> None:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef):
            annotations = [arg.annotation for arg in (*node.args.args, *node.args.kwonlyargs)] + [node.returns]
            bare = [_dotted(annotation) for annotation in annotations if annotation is not None]
            assert not {"Tensor", "torch.Tensor"} & set(bare), f"{node.name} takes or returns a tensor of any shape"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_source_is_ascii(path: Path) -> None:
    assert path.read_bytes().isascii()
