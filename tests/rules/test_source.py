"""Rules about what our code may say, read from its syntax tree. Each test lists every place that breaks its rule."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "densedpo"
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}
FAMILIES = re.compile(r"wan|cogvideox?|hunyuan\w*|ltx\w*|animatediff|mochi", re.IGNORECASE)
OBJECTIVES = re.compile(r"dpo|dense_dpo\w*")
DRAWS = {"randn", "rand", "randint", "randperm", "normal", "randn_like", "rand_like", "bernoulli", "multinomial"}


def _dotted(node: ast.AST | None) -> str:
    match node:
        case ast.Attribute(value=value, attr=attr):
            return f"{_dotted(value)}.{attr}"
        case ast.Name(id=name):
            return name
    return ""


def _calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, _dotted(node.func)


def _words(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name that the code gives or uses, and every text in it that is not a docstring, with its line."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.arg(arg=word) | ast.alias(name=word):
                yield node.lineno, word
            case ast.FunctionDef(name=word) | ast.ClassDef(name=word):
                yield node.lineno, word
            case ast.Constant(value=str(word)) if id(node) not in docstrings:
                yield node.lineno, word


def test_settings_are_not_read_from_the_environment() -> None:
    """But for secrets, which one module reads, and for what torchrun tells a process."""
    found = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        if name not in {"judge/credentials.py", "learn/processes/launch.py"}
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and _dotted(node) in {"os.environ", "os.getenv", "os.putenv"}
    ]
    assert found == []


def test_randomness_is_an_argument() -> None:
    """No global seeding, and no draw without a generator, outside the one file that may."""
    found = []
    for name, tree in TREES.items():
        if name == "core/seeds.py":
            continue
        for node, called in _calls(tree):
            module, _, function = called.rpartition(".")
            seeds = function == "manual_seed"
            legacy = module in {"np.random", "numpy.random"} and not function[:1].isupper()
            bare = module == "torch" and function in DRAWS and "generator" not in {key.arg for key in node.keywords}
            if seeds or legacy or bare or module == "random":
                found.append(f"{name}:{node.lineno}: {called}")
    assert found == []


def test_errors_are_caught_by_name() -> None:
    found = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                if {_dotted(kind) for kind in caught} & {"", "Exception", "BaseException"}:
                    found.append(f"{name}:{node.lineno}")
    assert found == []


def test_attributes_are_not_probed() -> None:
    found = [
        f"{name}:{node.lineno}: {called}"
        for name, tree in TREES.items()
        for node, called in _calls(tree)
        if called in {"hasattr", "getattr"}
    ]
    assert found == []


def test_model_families_are_named_in_adapters_only() -> None:
    found = [
        f"{name}:{line}: {text!r}"
        for name, tree in TREES.items()
        if not name.startswith("adapters/")
        for line, text in _words(tree)
        if any(FAMILIES.fullmatch(word) for word in re.split(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z])", text))
    ]
    assert found == []


def test_adapters_name_no_objective() -> None:
    found = [
        f"{name}:{line}: {text!r}"
        for name, tree in TREES.items()
        if name.startswith("adapters/")
        for line, text in _words(tree)
        if any(OBJECTIVES.fullmatch(word) for word in text.split())
    ]
    assert found == []


def test_objectives_import_torch_and_core_only() -> None:
    found = []
    for name, tree in TREES.items():
        if not name.startswith("learn/objectives/"):
            continue
        for node in ast.walk(tree):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            for module in modules:
                ours = module.startswith(("densedpo.core", "densedpo.learn.objectives"))
                root = module.split(".")[0]
                if not (ours or root in {"torch", "jaxtyping"} or root in sys.stdlib_module_names):
                    found.append(f"{name}: {module}")
    assert found == []


def test_tensors_in_core_and_objectives_say_their_shape() -> None:
    found = []
    for name, tree in TREES.items():
        if not name.startswith(("core/", "learn/objectives/")):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                annotations = [argument.annotation for argument in (*node.args.args, *node.args.kwonlyargs)]
                if {"Tensor", "torch.Tensor"} & {_dotted(annotation) for annotation in (*annotations, node.returns)}:
                    found.append(f"{name}:{node.lineno}: {node.name}")
    assert found == []


def test_source_is_ascii() -> None:
    assert [path.name for path in PACKAGE.rglob("*.py") if not path.read_bytes().isascii()] == []
