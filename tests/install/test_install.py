"""`cmake --install` gives a package that another project finds, builds against and runs."""

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NO_LIBTORCH = ["-DCMAKE_DISABLE_FIND_PACKAGE_Torch=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_Python=ON"]
EVERY_HEADER = """
cmake_minimum_required(VERSION 3.25)
project(headers LANGUAGES CXX)
find_package(steepest REQUIRED COMPONENTS kernels)
file(GLOB headers ${HEADERS}/base/*.h ${HEADERS}/kernels/*.h)
foreach(header IN LISTS headers)
  get_filename_component(name ${header} NAME_WE)
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/${name}.cc CONTENT "#include <${header}>\\n#include <${header}>\\n")
  list(APPEND sources ${CMAKE_BINARY_DIR}/${name}.cc)
endforeach()
add_library(headers OBJECT ${sources})
target_compile_features(headers PRIVATE cxx_std_20)
target_link_libraries(headers PRIVATE steepest::kernels)
"""


def cmake(*arguments):
    environment = {**os.environ, "PATH": f"{REPOSITORY}/.venv/bin:{os.environ['PATH']}"}
    return subprocess.run(
        ["cmake", *map(str, arguments)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="session")
def prefix(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prefix")
    result = cmake("--install", REPOSITORY / "build", "--prefix", folder)
    assert result.returncode == 0, result.stdout
    return folder


def configure(source, build, prefix, *options):
    return cmake("-G", "Ninja", "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}", *options)


def build(source, folder, prefix, *options):
    result = configure(source, folder, prefix, *options)
    assert result.returncode == 0, result.stdout
    result = cmake("--build", folder, "-j", 2)
    assert result.returncode == 0, result.stdout


def run(program):
    result = subprocess.run([program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    assert result.returncode == 0, result.stdout
    return result.stdout


def needed_libraries(program):
    output = subprocess.run(["readelf", "-d", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [line.split("[")[1].rstrip("]") for line in output.splitlines() if "(NEEDED)" in line]


def test_kernels_are_usable_without_libtorch(prefix, tmp_path):
    build(REPOSITORY / "examples" / "vote", tmp_path, prefix, *NO_LIBTORCH)
    assert run(tmp_path / "vote").split() == ["+", "0.75", "-", "1.25", "+", "0.75", "-", "1.25", "+", "0.75"]
    assert not [name for name in needed_libraries(tmp_path / "vote") if "torch" in name or "c10" in name]


def test_every_room_is_usable(prefix, tmp_path):
    python = f"-DPython_EXECUTABLE={REPOSITORY}/.venv/bin/python"
    build(REPOSITORY / "examples" / "trainer", tmp_path, prefix, python)
    assert run(tmp_path / "trainer").startswith("one step")


def test_kernel_headers_compile_by_themselves(prefix, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(EVERY_HEADER)
    build(tmp_path, tmp_path / "build", prefix, *NO_LIBTORCH, f"-DHEADERS={prefix}/include/steepest")


def test_the_package_says_what_it_lacks(prefix, tmp_path):
    result = configure(REPOSITORY / "examples" / "trainer", tmp_path, prefix, *NO_LIBTORCH, "-DPython_EXECUTABLE=/bin/false")
    assert result.returncode != 0
    assert "steepest needs libtorch" in " ".join(result.stdout.split())


@pytest.mark.parametrize("request_line", ["steepest REQUIRED COMPONENTS kernles", "steepest 0.2 REQUIRED"])
def test_what_does_not_exist_is_not_found(prefix, tmp_path, request_line):
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.25)\nproject(wrong LANGUAGES CXX)\nfind_package({request_line})\n"
    )
    assert configure(tmp_path, tmp_path / "build", prefix).returncode != 0
